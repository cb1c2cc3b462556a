"""Give OpenBLAS more threads for prompts, texts and answers while other processes leave cores idle
(Linux).
"""
