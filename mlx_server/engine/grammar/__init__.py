"""Constrain what a model may write: JSON schemas become grammars, by llguidance."""
