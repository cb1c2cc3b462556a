"""Embedding models: a BERT encoder in plain MLX, and the job that turns texts into vectors with it."""
