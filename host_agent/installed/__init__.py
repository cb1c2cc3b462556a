"""Digests of the installed code and settings. They show which running processes use older code or
settings.
"""
