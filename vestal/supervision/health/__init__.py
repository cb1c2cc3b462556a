"""Whether a process is well: `health_check` asks it, and `silence` judges a process that does not answer."""
