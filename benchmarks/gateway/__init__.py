"""Measure gateway and engine alone: the cost of the answer log and of the messages between them, and their
memory over time.
"""
