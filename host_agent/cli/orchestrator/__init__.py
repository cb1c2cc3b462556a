"""Commands that talk to the orchestrator: task, search."""
