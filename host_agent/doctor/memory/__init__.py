"""Diagnoses of memory: the machine's, Metal's, and the containers'."""
