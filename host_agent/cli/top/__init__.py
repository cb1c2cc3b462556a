"""The command `vestal top`: show the requests in flight and the memory of the MLX server, once or live."""
