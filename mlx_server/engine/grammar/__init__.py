"""Constrain what a model may write: llguidance turns JSON schemas into grammars."""
