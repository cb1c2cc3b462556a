"""The orchestrator: cycles of health, tasks and knowledge over the local LLMs, in a container of its own."""

VERSION = "0.1.0"
