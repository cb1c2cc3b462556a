"""A model's chat template, as its files have it; read without transformers."""

from __future__ import annotations

import json
from pathlib import Path


def chat_template(folder: Path) -> str:
    """Its text; empty where there is none, or none that can be read."""
    try:
        separate = folder / "chat_template.jinja"
        if separate.is_file():
            return separate.read_text("utf-8")
        told = json.loads((folder / "tokenizer_config.json").read_text("utf-8")).get("chat_template")
    except (OSError, ValueError, AttributeError):
        return ""
    if isinstance(told, list):  # several, by name
        named = {entry.get("name"): entry.get("template") for entry in told if isinstance(entry, dict)}
        told = named.get("default")
    return told if isinstance(told, str) else ""
