"""Diagnoses of Vestal's processes: they die at start, have lost their parent, or are reported unhealthy."""
