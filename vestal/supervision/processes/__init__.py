"""Start, watch, adopt and end operating-system processes, whole process groups at a time."""
