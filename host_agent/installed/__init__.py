"""Digests of the installed code and settings, by which Vestal notices processes that run older ones."""
