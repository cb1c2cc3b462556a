"""Measure gateway and engine alone: the answer log, their messages, and their memory over time."""
