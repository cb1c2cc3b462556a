"""Measurements of the agent: at rest, a recovery pass, callers of `POST /recover`, the status page."""
