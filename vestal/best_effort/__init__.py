"""Writes whose failure does not stop the program: log lines, PID files and saved state. Standard library
only.

A full or broken disk must not stop a process that serves. Every program that runs for long calls
`output.protect` first, and writes its small files through `files`. What could not be written is counted in
`failures.FAILURES`, from which `vestal status` and `vestal doctor` report it; `disks` says whether the disk
is the reason.
`tests/unit/test_best_effort.py` fails if one of these programs writes by other means.
"""
