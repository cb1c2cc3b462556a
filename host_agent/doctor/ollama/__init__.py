"""Diagnoses of Ollama: Ollama does not run, or runs as another user."""
