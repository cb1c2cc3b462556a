"""Compute the keys and values of a prompt up to its last image, in slices, so that other requests can
continue between two slices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import mlx.core as mx

from mlx_server.engine.kv.kv_cache import RequestKV
from mlx_server.engine.kv.quantized_kv_cache import QuantizedRequestKV
from mlx_server.engine.request_fence import confined
from mlx_server.engine.vision.feature_cache import ImageFeatures
from mlx_server.engine.vision.image_masks import same_image
from mlx_server.engine.vision.pictures import PlacedPicture
from mlx_server.engine.vision.tower_layers import TowerRun
from mlx_server.engine.vision.vision import Vision

LoadInputs = Callable[[int], "Future[dict[str, Any]]"]
"""Begins to prepare the tower's inputs for the image with this number, on a background thread."""


class ImagePrefill:
    """Processes one prompt up to its last image, in steps, with the text model `model` and its vision part
    `vision`. A step computes some layers of the vision tower for one image, or runs the text model on one
    slice of the prompt. Only the MLX thread may use an ImagePrefill.

    `tokens` are the tokens of the prompt and of the answer so far, and `placed` are the images with their
    places in `tokens`. A slice has at most `step_tokens` tokens, or more if an image must not be divided.
    `load_inputs` is called for each image whose inputs for the vision tower are needed but were discarded.

    The future `done` is completed, with None, after the last image; then `caches` hold the keys and values of
    the first `cached` tokens, and a batch can continue from there. The first `restored` tokens came from the
    prompt cache.
    """

    def __init__(
        self,
        vision: Vision,
        model: Any,
        tokens: Sequence[int],
        placed: Sequence[PlacedPicture],
        step_tokens: int,
        load_inputs: LoadInputs,
    ) -> None:
        self.done: Future[None] = Future()
        self.caches: list[Any] = []
        self.cached = self.restored = 0
        self.has_begun = False
        self._vision, self._model, self.tokens, self._placed = vision, model, tokens, placed
        self._step_tokens, self._load_inputs = step_tokens, load_inputs
        self._end = placed[-1].end
        self._positions, self._offset = vision.positions(len(tokens), placed)
        self._features: dict[int, ImageFeatures] = {}
        self._inputs: dict[int, Future[dict[str, Any]]] = {}
        self._tower_run: TowerRun | None = None

    @property
    def is_ready(self) -> bool:
        """Return whether no background job still prepares inputs for the vision tower, so that `compute` can
        be called.
        """
        return all(inputs.done() for inputs in self._inputs.values())

    def begin(self, caches: list[Any], cached: int) -> None:
        """Begin the computation after the first `cached` tokens, whose keys and values are in `caches`."""
        self.has_begun = True
        self.caches = caches
        self.cached = self.restored = cached
        for one in self._placed:
            if one.end <= cached:
                continue
            known = self._vision.tower.known(one.picture)
            if known is not None:
                self._features[one.number] = known
            elif one.picture.inputs is None:
                self._inputs[one.number] = self._load_inputs(one.number)
        self._finish_if_done()

    def compute(self, request: str) -> None:
        """Do one step. If the features of an image in the next slice of the prompt are missing, compute some
        layers of the vision tower for this image; otherwise compute the slice with the text model. `begin`
        must have been called, and `is_ready` must be True. Everything is computed once `done` is completed.

        Raises EngineError if an error concerns only the request with the id `request`. Errors of MLX are
        passed on, and must end the engine.
        """
        end = self._next_end()
        for one in self._placed:
            if one.start < end and one.end > self.cached and one.number not in self._features:
                self._run_tower(request, one)
                return
        with confined(request, "joining its images"):
            features = self._features_of(self.cached, end)
            positions = None if self._positions is None else self._positions[:, self.cached : end]
            pairs = same_image(self._placed, self.cached, end)
            tokens = self.tokens[self.cached : end]
            self._vision.forward(self._model, tokens, features, self.caches, positions, pairs)
        mx.eval([cache.state for cache in self.caches])  # an error of MLX ends the engine
        self.cached = end
        self._finish_if_done()

    def batched(self) -> list[Any]:
        """Return `caches`, one for each layer of the model, in the form of a batch whose only row is this
        prompt. The prompt cache can be filled from this form. The keys and values are not copied. Return []
        if the model has caches that cannot be cut into the prompt cache's blocks.
        """
        if not all(isinstance(cache, (RequestKV, QuantizedRequestKV)) for cache in self.caches):
            return []
        return [cache.merge([cache]) for cache in self.caches]

    def _next_end(self) -> int:
        """Return the index of the token that follows the next slice of the prompt. A slice never ends within
        an image whose tokens attend to each other in both directions.
        """
        end = min(self.cached + self._step_tokens, self._end)
        if self._vision.both_directions:
            end = max([end, *(one.end for one in self._placed if one.start < end < one.end)])
        return end

    def _run_tower(self, request: str, one: PlacedPicture) -> None:
        tower = self._vision.tower
        if self._tower_run is None:
            with confined(request, "reading its images"):
                inputs = one.picture.inputs
                if inputs is None:
                    inputs = self._inputs.pop(one.number).result()
                self._tower_run = tower.begin(one.picture, inputs)
        if self._tower_run.advance(tower.slice_s):  # an error of MLX ends the engine
            self._features[one.number] = features = self._tower_run.features
            self._tower_run = None
            tower.keep(one.picture, features)

    def _features_of(self, start: int, end: int) -> ImageFeatures:
        """Return the embeddings of the tokens start…end - 1, and the image features that are added to their
        hidden states after each of the text model's first layers. All arrays have the shape (1, tokens,
        width).
        """
        own = self._vision.embed_tokens(mx.array([list(self.tokens[start:end])]))
        deep: list[mx.array] = []
        for one in self._placed:
            rows = self._rows(one)
            inside = [(at, row) for row, at in enumerate(rows) if start <= at < end]
            if not inside:
                continue
            at = mx.array([position - start for position, _ in inside])
            found = self._features[one.number]
            chosen = mx.array([row for _, row in inside])
            own[0, at] = found.embeddings[chosen].astype(own.dtype)
            deep = deep or [mx.zeros_like(own) for _ in found.deep]
            for added, features in zip(deep, found.deep, strict=True):
                added[0, at] = features[chosen].astype(own.dtype)
        return ImageFeatures(own, tuple(deep))

    def _rows(self, one: PlacedPicture) -> list[int]:
        """Return, for each embedding of an image, the index of its token in the prompt. The indices need not
        be consecutive, because other tokens may stand between those of the image.
        """
        image_token = self._vision.tower.image_token
        return [at for at in range(one.start, one.end) if self.tokens[at] == image_token]

    def _finish_if_done(self) -> None:
        if self.cached >= self._end and not self.done.done():
            for cache in self.caches:
                cache.position_offset = self._offset
            self._features.clear()
            self.done.set_result(None)
