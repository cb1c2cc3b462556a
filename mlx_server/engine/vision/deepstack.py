"""Add features of images to the hidden states after the first layers of a text model, as Qwen3-VL does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import mlx.core as mx


class Deepstack:
    """Adds image features to the hidden states after each of the first `layers` layers of a text model,
    during a forward pass within the context manager `adding`.
    """

    def __init__(self, layers: int) -> None:
        self._layers = layers
        self._added: Sequence[mx.array] = ()

    def install(self, model: Any) -> None:
        """Make the first layers of mlx-lm's `model` call this object after their own computation. The names
        of their weights do not change.
        """
        for number, layer in enumerate(model.layers[: self._layers]):
            if not hasattr(layer, "_deepstack"):
                layer.__class__ = _adding_class(type(layer))
                layer._deepstack = _Place(self, number)

    @contextmanager
    def adding(self, features: Sequence[mx.array]) -> Iterator[None]:
        """Within the `with` block, which contains one forward pass, add `features` to the hidden states.
        `features` has one array, of shape (1, tokens, width), for each of the first layers; it is empty if
        there is nothing to add.
        """
        self._added = features
        try:
            yield
        finally:
            self._added = ()

    def behind(self, layer: int, hidden: mx.array) -> mx.array:
        """Return `hidden`, the hidden states after layer number `layer`. If the vision tower has made image
        features for this layer, they are added.
        """
        return hidden + self._added[layer].astype(hidden.dtype) if layer < len(self._added) else hidden


class _Place:
    """What a layer needs in order to call its Deepstack: the object `deepstack`, and the layer's `number`,
    from 0. The two are not a tuple, because mlx.nn would store a tuple among the layer's parameters.
    """

    def __init__(self, deepstack: Deepstack, number: int) -> None:
        self.deepstack, self.number = deepstack, number


def _adding_class(own: type[Any]) -> type[Any]:
    """Return a subclass of the layer class `own` that adds the image features to the layer's output."""

    def call(self: Any, *arguments: Any, **named: Any) -> mx.array:
        hidden: mx.array = own.__call__(self, *arguments, **named)
        place = self._deepstack
        return place.deepstack.behind(place.number, hidden)

    return type(own.__name__, (own,), {"__call__": call})
