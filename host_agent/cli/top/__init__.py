"""The command `vestal top`: the requests in flight and the memory of the MLX server, once or live."""
