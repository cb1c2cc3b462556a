"""Convert a GGUF file to a folder that mlx-lm can load."""
