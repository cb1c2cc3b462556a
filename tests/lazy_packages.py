"""Packages of other projects that are imported when a test first uses them.

Each pytest-xdist worker collects all tests, so what a file of tests imports is imported four times. The
clients that OpenAI, Anthropic and LangChain publish take seconds.
"""

from __future__ import annotations

import importlib
from typing import Any


class LazyPackage:
    """A stand-in for a package, which is imported when one of its public names is first read."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith(("_", "pytest")):  # pytest asks everything in a module whether it is a test
            raise AttributeError(attribute)
        return getattr(importlib.import_module(self._name), attribute)
