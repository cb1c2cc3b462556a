"""The answers of mlx-vlm's own model and processor, which are the reference for images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_server.engine.images import decode


class Reference:
    """mlx-vlm's model of one folder, in float32."""

    def __init__(self, folder: Path) -> None:
        from mlx_vlm import utils
        from transformers import AutoProcessor

        self._model = utils.load_model(folder)
        self._model.set_dtype(mx.float32)
        self._processor = AutoProcessor.from_pretrained(folder)

    def answer(
        self,
        prompt: str,
        files: Sequence[bytes],
        tokens: int,
        mask_of: Callable[[list[int]], np.ndarray] | None = None,
    ) -> tuple[list[int], list[np.ndarray]]:
        """Return the greedy tokens after a prompt with its markers of images, and the log-probabilities that
        each was chosen from. `mask_of` makes the mask of a prompt's tokens, if it is not the model's own.
        """
        from mlx_vlm.models.cache import make_prompt_cache

        made = dict(self._processor(text=[prompt], images=[decode(file) for file in files]))
        arrays: dict[str, Any] = {name: mx.array(np.array(value)) for name, value in made.items()}
        arrays.pop("token_type_ids", None)
        ids, mask = arrays.pop("input_ids"), arrays.pop("attention_mask")
        features = self._model.get_input_embeddings(input_ids=ids, mask=mask, **arrays).to_dict()
        given = {n: value for n, value in features.items() if value is not None and n != "attention_mask_4d"}
        text_model = self._model.language_model
        cache = make_prompt_cache(text_model)
        if mask_of is not None:
            given["mask"] = mx.array(mask_of(ids[0].tolist()))
        out = text_model(ids, cache=cache, **given)
        drawn: list[int] = []
        logprobs: list[np.ndarray] = []
        while True:
            logits = out.logits[0, -1].astype(mx.float32)
            logprobs.append(np.array(logits - mx.logsumexp(logits)))
            drawn.append(int(logprobs[-1].argmax()))
            if len(drawn) == tokens:
                return drawn, logprobs
            out = text_model(mx.array([drawn[-1:]]), cache=cache)
