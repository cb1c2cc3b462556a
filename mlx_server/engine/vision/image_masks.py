"""Allow the tokens of an image to attend to each other in both directions, because Gemma 3 was trained in
that way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_server.engine.vision.pictures import PlacedPicture


def same_image(placed: Sequence[PlacedPicture], start: int, end: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return a square matrix with a row and a column for each of the tokens start…end - 1. It is True for
    each pair of tokens that belong to the same image.
    """
    same = np.zeros((end - start, end - start), dtype=np.bool_)
    for one in placed:
        inside = slice(max(one.start - start, 0), max(min(one.end, end) - start, 0))
        same[inside, inside] = True
    return same


class BothDirections:
    """Wraps a layer's cache, so that its attention mask also allows each pair of new tokens for which
    `allowed`, of shape (new tokens, new tokens), is True.
    """

    def __init__(self, cache: Any, allowed: mx.array) -> None:
        self._cache, self._allowed = cache, allowed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    def make_mask(self, tokens: int, return_array: bool = False, window_size: int | None = None) -> Any:
        """Return the attention mask for the next `tokens` tokens, of shape (new tokens, cached and new
        tokens): the wrapped cache's own mask, in which the pairs of new tokens that the constructor's
        argument `allowed` marks are made True as well. Return None for a single token that may attend to all
        tokens before it.

        `window_size` is the size of the sliding window in the wrapped cache's mask, in tokens; None means no
        window. mlx-lm passes `return_array`, which makes no difference here.
        """
        mask = self._cache.make_mask(tokens, return_array=True, window_size=window_size)
        if not isinstance(mask, mx.array):
            return mask  # there is one token, which may attend to all tokens before it
        earlier = mx.zeros((tokens, mask.shape[-1] - tokens), dtype=mx.bool_)
        return mask | mx.concatenate([earlier, self._allowed], axis=1)
