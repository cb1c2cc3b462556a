"""Report the log-probabilities of the drawn token and of the most probable tokens."""

from __future__ import annotations

import math
from collections.abc import Callable

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mlx_server.protocol import Logprobs, TokenLogprob

Array = npt.NDArray[np.float32]

MIN_LOGPROB = -9999.0
"""Sent in place of minus infinity and NaN, which JSON cannot express."""

TokenBytes = Callable[[int], bytes]


def to_numpy(logprobs: mx.array) -> Array:
    """Evaluate an MLX array, and return it as a numpy array of float32."""
    return np.array(logprobs.astype(mx.float32))


def logprobs_of(token: int, logprobs: Array, top: int, token_bytes: TokenBytes) -> Logprobs:
    """Return the log-probabilities of `token` and of the `top` most probable tokens, the most probable first.

    `logprobs` has the shape (vocabulary,), and is not scaled by the temperature. `token_bytes` returns the
    UTF-8 bytes of a token.
    """
    values = np.where(np.isfinite(logprobs), logprobs, -np.inf)
    most_probable = np.argpartition(-values, top)[:top] if top < len(values) else np.arange(len(values))
    ranked = sorted((int(i) for i in most_probable), key=lambda i: -values[i])

    def entry(index: int) -> TokenLogprob:
        raw = token_bytes(index)
        value = max(float(values[index]), MIN_LOGPROB)
        return TokenLogprob(raw.decode("utf-8", "replace"), tuple(raw), value)

    return Logprobs(entry(token), tuple(entry(index) for index in ranked if math.isfinite(values[index])))
