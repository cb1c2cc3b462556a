"""Diagnoses of services: unhealthy, dying at start, orphaned processes."""
