"""Embedding models: a BERT encoder in plain MLX, and what turns its output into one vector a text."""
