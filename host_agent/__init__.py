"""The host agent: looks after the MLX server, Ollama, Docker and the orchestrator, and heals them."""

VERSION = "0.1.0"
