"""Measure the orchestrator's knowledge: its speed, its size, and whether a search finds the right passage."""
