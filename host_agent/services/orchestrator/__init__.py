"""The orchestrator: in containers or natively, decided when the agent starts."""
