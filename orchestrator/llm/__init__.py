"""Check the health of the backends (LLM servers, Ollama or MLX), and call them."""
