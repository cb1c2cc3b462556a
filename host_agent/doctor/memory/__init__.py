"""Diagnoses of memory: Metal out of memory or contended, wired memory, kills by the kernel or Docker."""
