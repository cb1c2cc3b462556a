"""Parsers for the output of macOS's own tools. Pure: text goes in, values come out."""
