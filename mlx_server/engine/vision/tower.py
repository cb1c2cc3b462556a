"""A model's vision tower and projector, from mlx-vlm, without mlx-vlm's text model.

Only the MLX thread may use this module, except for `import_mlx_vlm`.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlx_server.engine.vision.feature_cache import FeatureCache, ImageFeatures
from mlx_server.engine.vision.pictures import Picture
from mlx_server.engine.vision.tower_layers import SLICE_S, TowerLayers, TowerRun
from mlx_server.model_store.files import weight_files

_TEXT = "language_model."
_MODULES = ["text", "vision", "perceiver", "projector", "audio"]


def import_mlx_vlm() -> Any:
    """Import mlx-vlm, and return its module `utils`. Raises ImportError if it is not installed."""
    return importlib.import_module("mlx_vlm.utils")


class _TextEmbeddings:
    """Stands in for mlx-vlm's text model, of which mlx-vlm's code needs only the token embeddings in order to
    compute image features. `embed_tokens`, which converts token ids to embeddings, belongs to the text
    model that the engine has already loaded, so that the embeddings are in memory only once.
    """

    def __init__(self, embed_tokens: Callable[[mx.array], mx.array]) -> None:
        self.embed_tokens = embed_tokens
        self.model = self

    def get_rope_index(self, *_: Any, **__: Any) -> tuple[None, None]:
        """Return (None, None), because `positions.py` computes the positions instead."""
        return None, None


class VisionTower:
    """Computes the features of images. `calls` counts the images that it has begun to compute. `slice_s` is
    how many seconds it computes before other requests get a step.
    """

    def __init__(self, model: Any, image_token: int, features: FeatureCache | None = None) -> None:
        self.model, self.image_token = model, image_token
        self.features = FeatureCache() if features is None else features
        self.calls = 0
        self.slice_s = SLICE_S
        self._layers = TowerLayers(model)

    def known(self, picture: Picture) -> ImageFeatures | None:
        """Return the cached features of an image; None if they are not cached."""
        return self.features.get(picture.key)

    def begin(self, picture: Picture, inputs: Mapping[str, Any]) -> TowerRun:
        """Prepare the computation of the features of `picture`. Nothing is computed before the returned
        TowerRun is advanced.

        `inputs` are the arrays, by name, that the model's image processor has made from the image's pixels.
        Any exception may be raised if they are not what the vision tower expects.
        """
        self.calls += 1
        ids = mx.array([picture.ids])
        arrays = {name: _array(value) for name, value in inputs.items()}
        pixels = arrays.pop("pixel_values")
        with self._layers.recording() as outputs:
            whole = self.model.get_input_embeddings(
                input_ids=ids, pixel_values=pixels, mask=mx.ones_like(ids), **arrays
            )
        rows = [at for at, token in enumerate(picture.ids) if token == self.image_token]
        deep = whole.deepstack_visual_embeds
        features = ImageFeatures(
            whole.inputs_embeds[0, mx.array(rows)],
            () if deep is None else tuple(deep[layer] for layer in range(len(deep))),
        )
        return TowerRun(features, outputs)

    def keep(self, picture: Picture, features: ImageFeatures) -> None:
        """Cache the computed features of an image for later requests with the same image."""
        self.features.put(picture.key, features)


def _array(value: Any) -> Any:
    return mx.array(value) if isinstance(value, np.ndarray) else value


def load_tower(
    folder: Path,
    config: Mapping[str, Any],
    embed_tokens: Callable[[mx.array], mx.array],
    image_token: int,
) -> VisionTower:
    """Return the tower of the model in `folder`. Its weights are read when they are evaluated.

    `embed_tokens` is the text model's embedding function. Any exception may be raised if the files do not
    match each other.
    """
    utils = import_mlx_vlm()
    given = copy.deepcopy(dict(config))
    kinds, _ = utils.get_model_and_args(given)
    for part in ("text_config", "vision_config", "audio_config"):
        given.setdefault(part, {})
    model_config = utils.update_module_configs(kinds.ModelConfig.from_dict(given), kinds, given, _MODULES)
    model = kinds.Model(model_config)
    weights = _tower_weights(utils, kinds, model, model_config, folder)
    model.language_model = _TextEmbeddings(embed_tokens)
    if quantization := config.get("quantization"):
        _quantize(model, quantization, weights)
    model.load_weights(list(weights.items()), strict=True)
    model.eval()
    return VisionTower(model, image_token)


def _tower_weights(
    utils: Any, kinds: Any, model: Any, model_config: Any, folder: Path
) -> dict[str, mx.array]:
    """Return the weights in the files in `folder`, without the text model's, under the names of the
    parameters of `model`. `model` is mlx-vlm's whole vision-language model, into which no weights have
    been loaded yet, and `model_config` is its configuration. `utils` is the module `mlx_vlm.utils`, and
    `kinds` is the module of mlx-vlm that defines the classes of this architecture.
    """
    weights: dict[str, mx.array] = {}
    for path in weight_files.weight_files(folder):
        weights.update(cast("dict[str, mx.array]", mx.load(str(path))))
    weights = utils.sanitize_weights(model, weights)
    weights = utils.sanitize_weights(kinds.VisionModel, weights, model_config.vision_config)
    return {name: value for name, value in weights.items() if not name.startswith(_TEXT)}


def _quantize(model: nn.Module, quantization: Mapping[str, Any], weights: Mapping[str, mx.array]) -> None:
    """Convert the modules whose weights are quantized in the files to quantized modules."""

    def predicate(path: str, module: nn.Module) -> bool | dict[str, Any]:
        if not hasattr(module, "to_quantized") or f"{path}.scales" not in weights:
            return False
        own = quantization.get(path)
        return own if isinstance(own, dict) else True

    nn.quantize(
        model,
        group_size=quantization["group_size"],
        bits=quantization["bits"],
        mode=quantization.get("mode", "affine"),
        class_predicate=predicate,
    )
