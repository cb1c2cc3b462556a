"""The HTTP side of the MLX server: it holds the clients' connections, and survives crashes of the engine. It
never imports mlx.

README.md in this folder describes how a request passes through the gateway, and where to add a dialect.
"""
