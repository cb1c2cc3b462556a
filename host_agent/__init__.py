"""The host agent: it supervises the MLX server, Ollama, Docker and the orchestrator, and recovers them."""

VERSION = "0.1.0"
