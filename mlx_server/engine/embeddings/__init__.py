"""Embedding models: encoders in plain MLX, and the job that turns texts into vectors with them."""
