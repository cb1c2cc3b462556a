"""A cache of the features that a model's vision tower has computed for recent images, by the
images' content.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

MAX_FEATURE_BYTES = 64 * 1024 * 1024
"""The default size limit of the cache. The features of an image with 1,000 tokens take 7 MiB for a 7B model
in bfloat16."""


@dataclass(frozen=True)
class ImageFeatures:
    """The features that the vision tower has computed for one image, as MLX arrays of shape (image tokens,
    width).

    `embeddings` replace the embeddings of the image's tokens. `deep` has an array for each of the first
    layers of the text model, which is added to the hidden states after that layer; `deep` is empty for a
    model that adds none.
    """

    embeddings: Any
    deep: tuple[Any, ...] = ()

    @property
    def nbytes(self) -> int:
        return int(sum(array.nbytes for array in (self.embeddings, *self.deep)))


class FeatureCache:
    """The features of the most recently used images, `limit_bytes` at most in all."""

    def __init__(self, limit_bytes: int = MAX_FEATURE_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._features: OrderedDict[int, ImageFeatures] = OrderedDict()
        self.nbytes = 0

    def get(self, key: int) -> ImageFeatures | None:
        """Return the features of the image whose `Picture.key` is `key`; None if they are not cached."""
        found = self._features.get(key)
        if found is not None:
            self._features.move_to_end(key)
        return found

    def put(self, key: int, features: ImageFeatures) -> None:
        """Store the features of an image, and drop the least recently used features that exceed the limit.

        Features that are larger than the limit are not stored.
        """
        if key in self._features or features.nbytes > self._limit_bytes:
            return
        self._features[key] = features
        self.nbytes += features.nbytes
        while self.nbytes > self._limit_bytes:
            _, dropped = self._features.popitem(last=False)
            self.nbytes -= dropped.nbytes
