"""The host agent: supervise the MLX server, Ollama, Docker and the orchestrator, and recover them."""

VERSION = "0.1.0"
