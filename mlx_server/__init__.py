"""The MLX server: a gateway that holds the clients' connections, and an engine process that may crash."""

VERSION = "0.1.0"
