"""Runs of scenarios: they store figures, keep to budgets, and resume after an interruption."""
