"""Diagnoses of the models, of the hub, and of the prompt cache's files."""
