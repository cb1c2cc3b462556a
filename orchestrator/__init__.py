"""The orchestrator: health checks, durable tasks and knowledge over local LLMs, in containers of its own."""

VERSION = "0.1.0"
