"""Diagnoses of Vestal's processes: they die at start, run without their parent, or are reported as
unhealthy.
"""
