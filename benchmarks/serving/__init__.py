"""Measure the MLX server and its peers: the servers, the prompts, and what clients observe."""
