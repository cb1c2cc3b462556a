"""The health of a process: `health_check` asks the process, and `silence` judges one that does not answer."""
