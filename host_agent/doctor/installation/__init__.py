"""Diagnoses of the installation: settings, Python, packages, BLAS, jobs, folders, disk, ports."""
