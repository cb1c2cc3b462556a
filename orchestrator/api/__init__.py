"""The API on :8088."""
