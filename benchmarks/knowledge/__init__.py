"""Measurements of the orchestrator's knowledge: speed, size, and whether a search finds the passage."""
