"""Recovery passes: checks → issues → remedies → checks again.

`checks` gathers facts, `issues` decides what they mean, `apply_remedies` acts, `recovery_pass` does one after
the other, and `passes` runs one pass at a time.
"""
