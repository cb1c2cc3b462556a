"""The MLX server: a gateway that holds the clients, and an engine that may die."""

VERSION = "0.1.0"
