"""The commands `vestal chat` and `vestal demo`: stream an answer to the terminal across an engine's death."""
