"""Read Ollama's own store of models, and import models from it."""
