"""Diagnoses of models and of the prompt cache's files."""
