"""Plan and record cycles: periodic rounds of health check, tasks, knowledge and report."""
