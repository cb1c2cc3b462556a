"""Give OpenBLAS more threads while other processes leave cores idle (Linux): for the prompts and the answers
of language models, and for texts that are embedded or reranked.
"""
