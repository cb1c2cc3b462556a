"""Commands that show: status, logs, doctor, cache, models, token, version."""
