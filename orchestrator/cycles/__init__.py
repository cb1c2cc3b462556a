"""Cycles: periodic rounds of health check, tasks, knowledge and report, with their schedule and records."""
