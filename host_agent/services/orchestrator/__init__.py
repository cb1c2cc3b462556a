"""The orchestrator: whether it runs in containers or natively, and how it is started and probed."""
