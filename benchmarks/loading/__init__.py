"""Measure how fast a large model is loaded."""
