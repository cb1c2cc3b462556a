"""Compute a vision tower one layer at a time, so that an image delays running answers only by a layer instead
of the whole tower.

MLX computes lazily: the tower's forward pass only builds a graph, and each layer's output in the graph can be
evaluated separately. Intermediate arrays of a layer are freed before the next layer, which also limits the
memory that a tower takes.
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
"""How many seconds layers are computed before other requests get a step. At least one layer is computed."""


class TowerLayers:
    """Records the outputs of the layers of the vision tower `model` during a forward pass in the `with` block
    of `recording`, in the order in which the layers are called.

    A list of modules in `model` counts as a list of layers if it has at least two modules, all of the same
    class. The constructor replaces the class of each layer; the names of its weights do not change.
    """

    def __init__(self, model: nn.Module) -> None:
        self._outputs: list[mx.array] = []
        for layer in _layers(model):
            if not hasattr(layer, "_recorder"):
                layer.__class__ = _recording_class(type(layer))
            layer._recorder = self

    @contextmanager
    def recording(self) -> Iterator[list[mx.array]]:
        """Within the `with` block, append the output of each layer that is called to the yielded list.

        Within the `with` block, `mx.eval` does nothing, because Qwen3-VL's forward pass would evaluate its
        features, and thereby the whole tower at once.
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
    """Evaluates the features of one image layer by layer. `features` are lazy arrays: their graph has been
    built, but nothing is computed yet. `outputs` are the lazy outputs of the tower's layers in this graph, in
    the order of the layers.
    """

    def __init__(self, features: ImageFeatures, outputs: list[mx.array]) -> None:
        self.features = features
        self._outputs = outputs[-2::-1]
        """The outputs to evaluate, in reverse order. The last layer's output is left out, because evaluating
        the features computes it if they need it."""

    def advance(self, slice_s: float = SLICE_S, now: Callable[[], float] = time.perf_counter) -> bool:
        """Compute layers, at least one, until `slice_s` seconds have passed. Return True if the features are
        computed.
        """
        end = now() + slice_s
        while self._outputs:
            mx.eval(self._outputs.pop())
            if now() >= end:
                return False
        mx.eval(self.features.embeddings, *self.features.deep)
        return True


def _evaluate_nothing(*_: Any) -> None:
    """Do nothing, in place of `mx.eval` while a graph is built."""


def _layers(model: nn.Module) -> Iterator[Any]:
    for module in model.modules():
        for child in module.children().values():
            if isinstance(child, list) and len(child) > 1 and _is_stack(child):
                yield from child


def _is_stack(children: list[Any]) -> bool:
    return isinstance(children[0], nn.Module) and len({type(child) for child in children}) == 1


def _recording_class(own: type[Any]) -> type[Any]:
    """Return a subclass of the layer class `own`. Each call of such a layer also passes its output to
    `record` of the layer's `_recorder`, a TowerLayers.
    """

    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        output = own.__call__(self, *arguments, **named)
        self._recorder.record(output)
        return output

    return type(own.__name__, (own,), {"__call__": call})
