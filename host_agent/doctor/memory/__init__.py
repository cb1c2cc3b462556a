"""Diagnoses of memory: the machine's, Metal's, and that of containers."""
