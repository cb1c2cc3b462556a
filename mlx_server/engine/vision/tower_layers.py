"""Compute a tower a layer at a time, so that an image stops running answers for a layer and not for a tower.

MLX computes what it is asked for: a tower's forward pass makes a graph, and each layer's output in it can be
computed alone. What a layer needed is freed before the next one, which bounds the memory of a tower as well.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_server.engine.vision.feature_cache import ImageFeatures

SLICE_S = 0.1
"""For how long layers are computed before other requests get a step. At least one layer is computed."""


class TowerLayers:
    """Records the outputs of the layers of one tower, in the order in which they are called.

    The layers are found by their shape: lists of modules of one class. Their weights keep their names.
    """

    def __init__(self, model: nn.Module) -> None:
        self._outputs: list[mx.array] = []
        for layer in _layers(model):
            if not hasattr(layer, "_recorder"):
                layer.__class__ = _recording_class(type(layer))
            layer._recorder = self

    @contextmanager
    def recording(self) -> Iterator[list[mx.array]]:
        """Return the list to which the layers that are called meanwhile append their outputs.

        Qwen3-VL's forward pass evaluates its features itself, which would be the whole tower at once: no call
        of `mx.eval` has an effect meanwhile.
        """
        outputs: list[mx.array] = []
        self._outputs = outputs
        evaluate = mx.eval
        mx.eval = _evaluate_nothing
        try:
            yield outputs
        finally:
            mx.eval = evaluate
            self._outputs = []

    def record(self, output: Any) -> None:
        if isinstance(output, mx.array):
            self._outputs.append(output)


class TowerRun:
    """Computes the features of one image, whose graph is made. `outputs` are those of the layers."""

    def __init__(self, features: ImageFeatures, outputs: list[mx.array]) -> None:
        self.features = features
        self._outputs = outputs[-2::-1]
        """The next one last. The features need the last layer, or not even that one."""

    def advance(self, slice_s: float = SLICE_S, now: Callable[[], float] = time.perf_counter) -> bool:
        """Compute layers until `slice_s` have passed, at least one. Return True if all is computed."""
        end = now() + slice_s
        while self._outputs:
            mx.eval(self._outputs.pop())
            if now() >= end:
                return False
        mx.eval(self.features.embeddings, *self.features.deep)
        return True


def _evaluate_nothing(*_: Any) -> None:
    """Take the place of `mx.eval` while a graph is made."""


def _layers(model: nn.Module) -> Iterator[Any]:
    for module in model.modules():
        for child in module.children().values():
            if isinstance(child, list) and len(child) > 1 and _is_stack(child):
                yield from child


def _is_stack(children: list[Any]) -> bool:
    return isinstance(children[0], nn.Module) and len({type(child) for child in children}) == 1


def _recording_class(own: type[Any]) -> type[Any]:
    """Return a class of layers that behave as `own`, and then record their output."""

    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        output = own.__call__(self, *arguments, **named)
        self._recorder.record(output)
        return output

    return type(own.__name__, (own,), {"__call__": call})
