"""The HTTP API on port 8088."""
