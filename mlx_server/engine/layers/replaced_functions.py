"""Replace a function of mlx-lm in the Python modules that define a model's layers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import mlx.nn as nn


def replace_function(
    model: nn.Module, name: str, original: Callable[..., Any], replacement: Callable[..., Any]
) -> None:
    """In each Python module that defines layers of `model` and has imported `original` under `name`, put
    `replacement` in its place. This changes every model whose layers come from these modules.

    The module that defines `original` keeps it, because `replacement` may call it from there.
    """
    for module in {type(layer).__module__ for layer in model.modules()} - {original.__module__}:
        if getattr(sys.modules[module], name, None) is original:
            setattr(sys.modules[module], name, replacement)
