"""Read and check the files of a model's folder without importing MLX."""
