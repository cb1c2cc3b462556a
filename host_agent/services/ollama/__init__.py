"""Ollama: watched, adopted where somebody else looks after it, started where nobody does."""

from host_agent.services.ollama.installation import installed
from host_agent.services.ollama.service import OllamaService

__all__ = ["OllamaService", "installed"]
