"""`vestal launch`: start a program that uses language models, pointed at this machine's MLX server."""
