"""Requests on their way through the engine, and the loop that advances them. Lives on the MLX thread."""
