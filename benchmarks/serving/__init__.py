"""Measurements of the MLX server beside its peers: the servers, the prompts, and what clients observe."""
