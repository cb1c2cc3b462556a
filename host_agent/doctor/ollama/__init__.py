"""Diagnoses of Ollama: not running, or running as another user."""
