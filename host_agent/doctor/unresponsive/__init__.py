"""Diagnoses of servers that listen and do not answer."""
