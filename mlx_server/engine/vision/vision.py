"""The vision part of a model: it computes the features of images with a vision tower, and runs the text model
on prompts in which these features take the place of the image tokens' embeddings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.utils import dequantize_model

from mlx_server.engine.device import computes_on_gpu
from mlx_server.engine.vision.deepstack import Deepstack
from mlx_server.engine.vision.families import VisionFamily
from mlx_server.engine.vision.feature_cache import ImageFeatures
from mlx_server.engine.vision.image_masks import BothDirections
from mlx_server.engine.vision.mrope import MRope, mrope_of
from mlx_server.engine.vision.pictures import PlacedPicture
from mlx_server.engine.vision.positions import Positions, mrope_positions
from mlx_server.engine.vision.tower import VisionTower, load_tower


@dataclass(frozen=True)
class Vision:
    """The vision part of a model: computes an image's features with `tower`, and calls the text model for
    prompts with images (`forward`). Only the MLX thread may use it.

    `embed_tokens` converts token ids to the text model's embeddings. `mrope` rotates by positions in time,
    height and width; None if tokens of images are numbered like other tokens. With `mrope`, a token of an
    image represents `merge_size` by `merge_size` patches. `deepstack` adds features after the text model's
    first layers; None if the model does not need that. With `both_directions`, the tokens of an image attend
    to each other in both directions.
    """

    tower: VisionTower
    embed_tokens: Callable[[mx.array], mx.array]
    mrope: MRope | None = None
    merge_size: int = 1
    deepstack: Deepstack | None = None
    both_directions: bool = False

    def install(self, text_model: Any) -> None:
        """Prepare `text_model` for the calls by `forward`. It must be the text model with which this vision
        part was loaded, or a copy of that text model with an adapter.
        """
        if self.mrope is not None:
            self.mrope.install(text_model)
        if self.deepstack is not None:
            self.deepstack.install(text_model)

    def positions(self, tokens: int, placed: Sequence[PlacedPicture]) -> tuple[Positions | None, int]:
        """Return the positions of a prompt's first `tokens` tokens, and the number to add to the index of
        each later token to get its position.

        The positions are None if the text model numbers the tokens of images like other tokens.
        """
        return (None, 0) if self.mrope is None else mrope_positions(tokens, placed, self.merge_size)

    def forward(
        self,
        model: Any,
        tokens: Sequence[int],
        features: ImageFeatures,
        caches: Sequence[Any],
        positions: Positions | None,
        same_image: Any,
    ) -> mx.array:
        """Call the text model `model` for `tokens`, and return the logits, of shape (1, tokens, vocabulary).

        `features` holds the embeddings of all `tokens`, of text and of images, and the image features that
        the field `deepstack` adds to the hidden states after the text model's first layers. `caches` hold the
        keys and values of earlier tokens. `positions` are the positions of `tokens`, of shape (3, tokens);
        None if the model numbers its tokens consecutively. `same_image` is a square matrix of booleans: True
        for each pair of `tokens` that belong to the same image.
        """
        if self.both_directions:
            caches = [BothDirections(cache, mx.array(same_image)) for cache in caches]
        with ExitStack() as given:
            if self.mrope is not None and positions is not None:
                given.enter_context(self.mrope.at(positions))
            if self.deepstack is not None:
                given.enter_context(self.deepstack.adding(features.deep))
            logits: mx.array = model(
                mx.array([tokens]), cache=list(caches), input_embeddings=features.embeddings
            )
        return logits

    def arrays(self) -> list[mx.array]:
        """Return the weights of the tower and the projector."""
        return [array for _, array in tree_flatten(self.tower.model.parameters())]


def load_vision(
    folder: Path,
    config: Mapping[str, Any],
    family: VisionFamily,
    text_model: Any,
    image_token: int,
    processor: Any,
) -> Vision:
    """Return the vision part of the model in `folder`, and prepare `text_model` for it. The vision part's
    weights are read when they are evaluated.

    `family` says how the text model reads images, `image_token` is the id of the token that stands for a part
    of an image, and `processor` is the model's image processor. Any exception may be raised if the files do
    not match each other.
    """
    embed_tokens = _embedding_of(text_model)
    tower = load_tower(folder, config, embed_tokens, image_token)
    if not computes_on_gpu():  # like the text model, since other types are slow on a CPU
        if config.get("quantization"):
            tower.model = dequantize_model(tower.model)
        tower.model.set_dtype(mx.float32)
    mrope = mrope_of(config, family.interleaved) if family.mrope else None
    merge_size = int(getattr(processor.image_processor, "merge_size", 1))
    deep_layers = len((config.get("vision_config") or {}).get("deepstack_visual_indexes") or ())
    deepstack = Deepstack(deep_layers) if deep_layers else None
    vision = Vision(tower, embed_tokens, mrope, merge_size, deepstack, family.both_directions)
    vision.install(text_model)
    return vision


def _embedding_of(text_model: Any) -> Callable[[mx.array], mx.array]:
    """Return the function of an mlx-lm model that converts token ids to embeddings."""
    inner = getattr(text_model, "language_model", text_model)
    return getattr(inner, "model", inner).embed_tokens
