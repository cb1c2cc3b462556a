"""Writes whose failure ends nothing: log lines, PID files and saved state. Standard library only.

A full or broken disk must not stop a process that serves. Every program that runs for long calls
`output.protect` first, and writes its small files through `files`. What could not be written is counted in
`failures.FAILURES`, from which `vestal status` and the doctor report it. `tests/unit/test_best_effort.py`
refuses other writes in these programs.
"""
