"""Reading of Ollama's own store of models, and import of its models."""
