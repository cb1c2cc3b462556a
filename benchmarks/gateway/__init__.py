"""Measurements of gateway and engine alone: the answer log, their messages, their memory over time."""
