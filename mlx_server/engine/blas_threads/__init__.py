"""Give OpenBLAS more threads for prompts and texts while other processes leave the cores idle (Linux)."""
