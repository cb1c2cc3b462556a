"""`vestal launch`: start a program that uses language models, connected to this machine's MLX server."""
