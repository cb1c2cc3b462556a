"""Constrain what a model may write: JSON schemas as grammars, by llguidance."""
