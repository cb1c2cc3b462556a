"""A cache of what a model's vision tower has computed of the last images, by the images' content."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

MAX_FEATURE_BYTES = 64 * 1024 * 1024
"""An image of 1,000 tokens of a 7B model takes 7 MiB in bfloat16."""


@dataclass(frozen=True)
class ImageFeatures:
    """What the tower has computed of one image, as MLX arrays of shape (image tokens, width).

    `embeddings` take the place of the tokens' own. `deep` are added to the hidden states behind the first
    layers, one for each layer.
    """

    embeddings: Any
    deep: tuple[Any, ...] = ()

    @property
    def nbytes(self) -> int:
        return int(sum(array.nbytes for array in (self.embeddings, *self.deep)))


class FeatureCache:
    """The features of the most recently used images, of at most `limit_bytes` in all."""

    def __init__(self, limit_bytes: int = MAX_FEATURE_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._features: OrderedDict[int, ImageFeatures] = OrderedDict()
        self.nbytes = 0

    def get(self, key: int) -> ImageFeatures | None:
        """Return the features of the image with this key; None if they are not cached."""
        found = self._features.get(key)
        if found is not None:
            self._features.move_to_end(key)
        return found

    def put(self, key: int, features: ImageFeatures) -> None:
        """Store the features of an image, and drop the least recently used ones beyond the limit.

        Features that are larger than the limit are not stored.
        """
        if key in self._features or features.nbytes > self._limit_bytes:
            return
        self._features[key] = features
        self.nbytes += features.nbytes
        while self.nbytes > self._limit_bytes:
            _, dropped = self._features.popitem(last=False)
            self.nbytes -= dropped.nbytes
