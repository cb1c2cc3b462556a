"""Compute log-probabilities with enough digits, and report those of the drawn token and of the most probable
tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mlx_server.protocol import Logprobs, TokenLogprob

Array = npt.NDArray[np.float32]

MIN_LOGPROB = -9999.0
"""Sent in place of minus infinity and NaN, which JSON cannot express."""

TokenBytes = Callable[[int], bytes]


class Float32Logits:
    """Wraps a language model, so that its calls return logits in float32.

    On a GPU, logits usually are bfloat16. mlx-lm computes log-probabilities in the type of the logits, after
    it has joined the logits of all requests of a batch. In bfloat16, they are wrong by up to 6 %, unless a
    penalty of one request makes all of them float32. So the answer to one request depended on the others.
    """

    def __init__(self, model: Any) -> None:
        self._model = model

    def __call__(self, tokens: mx.array, cache: Any) -> mx.array:
        logits: mx.array = self._model(tokens, cache=cache)
        return logits.astype(mx.float32)


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
