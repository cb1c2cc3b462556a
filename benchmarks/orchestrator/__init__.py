"""Measure the orchestrator in its container: start, memory, tasks and long operation."""
