"""Check that a language model computes, that is, that its logits are finite and differ from each other."""

from __future__ import annotations

import math
from typing import Any, cast

import mlx.core as mx


def logits_fault(model: Any, token: int) -> str:
    """Compute the logits after one token. Return "" if they are finite and not all equal; else a text that
    says what is wrong.
    """
    logits = model(mx.array([[token]]))[0, -1].astype(mx.float32)
    spread = cast(float, (mx.max(logits) - mx.min(logits)).item())
    return "" if math.isfinite(spread) and spread > 0 else f"The logits of a token spread over {spread}."
