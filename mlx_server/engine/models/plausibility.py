"""Check that a language model computes: that its logits are numbers that differ."""

from __future__ import annotations

import math
from typing import Any, cast

import mlx.core as mx


def logits_fault(model: Any, token: int) -> str:
    """Return "" if the logits after one token are finite and not all equal, and else what is wrong."""
    logits = model(mx.array([[token]]))[0, -1].astype(mx.float32)
    spread = cast(float, (mx.max(logits) - mx.min(logits)).item())
    return "" if math.isfinite(spread) and spread > 0 else f"The logits of a token spread over {spread}."
