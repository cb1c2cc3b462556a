"""The orchestrator: health checks, durable tasks and knowledge search over local LLMs, in its own
containers.
"""

VERSION = "0.1.0"
