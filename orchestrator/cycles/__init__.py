"""Cycles: what one does and when, and the record of what it did."""
