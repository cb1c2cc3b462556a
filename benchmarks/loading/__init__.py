"""Measurements of how fast a large model is loaded."""
