"""Diagnoses of servers that listen but do not answer."""
