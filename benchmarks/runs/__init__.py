"""Run scenarios, which store figures, keep to time budgets, and can be resumed after an interruption."""
