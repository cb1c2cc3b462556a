"""Measure the agent: at rest, during a recovery pass, with many callers of `POST /recover`, and its status
page.
"""
