"""The orchestrator in its container: its start, its memory, its tasks, its kills."""
