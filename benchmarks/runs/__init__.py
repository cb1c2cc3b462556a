"""Runs of scenarios: stored figures, budgets, and going on after an interruption."""
