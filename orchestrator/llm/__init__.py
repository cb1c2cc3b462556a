"""The backends (LLM servers, Ollama or MLX): their health, and the calls to them."""
