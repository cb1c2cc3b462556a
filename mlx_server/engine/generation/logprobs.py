"""How likely a drawn token was, and what else was: for clients that ask for log-probabilities."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import numpy as np

from mlx_server.protocol import Logprobs, TokenLogprob

LEAST = -9999.0
"""Stands for minus infinity, which JSON has no word for."""

TokenBytes = Callable[[int], bytes]


def logprobs_of(token: int, logprobs: mx.array, top: int, token_bytes: TokenBytes) -> Logprobs:
    """Of `token`, and of the `top` likeliest. `logprobs` (vocabulary,) are those before the temperature."""
    values = np.array(logprobs.astype(mx.float32))
    best = np.argpartition(-values, top)[:top] if top < len(values) else np.arange(len(values))
    ranked = sorted((int(i) for i in best), key=lambda i: -values[i])

    def chance(index: int) -> TokenLogprob:
        raw = token_bytes(index)
        value = max(float(values[index]), LEAST)
        return TokenLogprob(raw.decode("utf-8", "replace"), tuple(raw), value)

    return Logprobs(chance(token), tuple(chance(index) for index in ranked if values[index] > -np.inf))
