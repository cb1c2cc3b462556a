"""Ollama's API: text and embeddings in `routes`, models in `model_routes`."""

DIALECT = "ollama"
