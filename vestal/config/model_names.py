"""Model names as Ollama has them: `[host/][namespace/]name[:tag]`. Pure.

A client may leave out the registry's host, the namespace `library` and the tag `latest`. Upper and lower case
are kept as they were first written, and do not distinguish two models.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TypeVar

DEFAULT_TAG = "latest"
_REGISTRY, _LIBRARY = "registry.ollama.ai/", "library/"
_HUB = re.compile(r"(?:https?://)?(?:hf:|(?:hf\.co|huggingface\.co)/)(?=[^/]+/)", re.IGNORECASE)
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")

T = TypeVar("T")


def canonical(model: str) -> str:
    """Return the name with its tag, and without the default namespace: `library/x` → `x:latest`.

    A repository of the Hugging Face hub is called by owner and name, whatever stands before them:
    `hf.co/org/model` and `hf:org/model` → `org/model:latest`. Only the last part of a path can have a tag:
    `registry:5000/org/model` → `registry:5000/org/model:latest`.
    """
    name = _HUB.sub("", model.strip(), count=1)
    name = _without(_without(name, "https://"), _REGISTRY)
    name = _without(name, _LIBRARY)
    return name if ":" in name.rsplit("/", 1)[-1] else f"{name}:{DEFAULT_TAG}"


def name_key(model: str) -> str:
    """Return a key by which two spellings of one model's name are equal: the canonical name in lower case."""
    return canonical(model).casefold()


def find_named(model: str, items: Iterable[T], name_of: Callable[[T], str]) -> T | None:
    """Return the item with exactly this name, or else the first one whose name differs only in upper and
    lower case; None if there is none. `name_of` returns an item's name.
    """
    wanted, key, alike = canonical(model), name_key(model), None
    for item in items:
        name = canonical(name_of(item))
        if name == wanted:
            return item
        if alike is None and name.casefold() == key:
            alike = item
    return alike


def adapter_name(model: str, adapter: str) -> str:
    """Return the name of `model` with an adapter: `llama3` and `pirate` → `llama3:pirate`. A name has one
    tag: `smollm2:135m` and `pirate` → `smollm2:135m-pirate`.
    """
    path, _, tag = canonical(model).rpartition(":")
    return f"{path}:{adapter}" if tag == DEFAULT_TAG else f"{path}:{tag}-{adapter}"


def is_valid_name(model: str) -> bool:
    """Return True if Ollama would accept `model` as the name of a new model.

    Its parts consist of letters, digits, `_`, `-` and `.`, and at most three of them stand before the tag.
    """
    path, _, tag = canonical(model).rpartition(":")
    *before, last = path.split("/")
    if len(before) > 2 or not all(map(_PART.fullmatch, (tag, last))):
        return False
    if before and (not _PART.fullmatch(before[-1])):
        return False
    return len(before) < 2 or _HOST.fullmatch(before[0]) is not None


def _without(text: str, prefix: str) -> str:
    return text[len(prefix) :] if text[: len(prefix)].casefold() == prefix else text
