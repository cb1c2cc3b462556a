"""Commands that show something: status, doctor, logs, models, cache, token, version."""
