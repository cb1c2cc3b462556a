"""Turn texts into vectors: tokenize, truncate, batch by length, encode, pool, project, normalize."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn

from mlx_server.engine.device import computes_on_gpu
from mlx_server.engine.embeddings.architectures.attention import (
    Packed,
    TextEncoder,
    last_states,
)
from mlx_server.engine.embeddings.architectures.build import (
    build_encoder,
    dense_weight,
    read_weights,
)
from mlx_server.engine.embeddings.batches import PendingTexts
from mlx_server.engine.embeddings.pooling import output_size, pool, project
from mlx_server.engine.embeddings.text_tokenizer import TextTokenizer, read_tokenizer
from mlx_server.engine.generation.prompts.token_ids import check_tokenizer_ids
from mlx_server.model_store.files import model_kind, sentence_files, weight_files
from mlx_server.model_store.files.sentence_modules import SentenceSteps, sentence_steps


@dataclass(frozen=True)
class Encoder:
    """A loaded embedding model, whose vectors have `dim` numbers.

    `steps` describes how a text's vector is computed from its hidden states, and `projections` has the
    weights for these steps. Vectors have unit norm if `is_normalized`. `token_rows` is how many token ids the
    model has embeddings for. `probe` holds the token ids of a short text, with which the loaded model is
    tested.
    """

    model: nn.Module
    tokenizer: TextTokenizer
    context_tokens: int
    dim: int
    steps: SentenceSteps
    projections: Mapping[str, mx.array]
    is_normalized: bool
    token_rows: int
    probe: list[int]

    @property
    def packs(self) -> bool:
        """Return True if texts are packed instead of padded. On a GPU, texts are padded, because padding
        takes less time there than one attention call for each length.
        """
        return isinstance(self.model, TextEncoder) and not computes_on_gpu()

    def pending(self, lengths: Sequence[int]) -> PendingTexts:
        """Return the texts with these numbers of tokens, to be divided into batches for `encode`."""
        return PendingTexts(lengths, packs=self.packs)

    def encode(self, batch: Sequence[list[int]]) -> list[list[float]]:
        """Return the vectors of the texts in `batch`, which are lists of token ids, in the same order. The
        computation can be paused after each layer (see `last_states`).
        """
        order = sorted(range(len(batch)), key=lambda i: len(batch[i]))
        ordered = [batch[i] for i in order]
        groups = tuple((len(list(group)), length) for length, group in groupby(map(len, ordered)))
        if self.packs:
            layout = Packed(groups)
            hidden = last_states(self.model.packed(mx.array([list(chain.from_iterable(ordered))]), layout))
            parts = zip(layout.split(hidden), groups, strict=True)
            pooled = mx.concatenate([self._pool(part, [length] * texts) for part, (texts, length) in parts])
        else:
            hidden = last_states(self.model.padded(*padded(ordered)))
            pooled = self._pool(hidden, list(map(len, ordered)))
        vectors = pooled[mx.array(sorted(range(len(batch)), key=lambda i: order[i]))]
        vectors = project(vectors, self.steps, self.projections)
        if self.is_normalized:
            vectors = vectors / mx.maximum(mx.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
        return vectors.tolist()  # type: ignore[return-value]

    def _pool(self, hidden: mx.array, lengths: Sequence[int]) -> mx.array:
        prompt_tokens = 0 if self.steps.pools_prompt else self.tokenizer.prompt_tokens
        return pool(hidden, lengths, min(prompt_tokens, min(lengths) - 1), self.steps.pooling)


def padded(batch: Sequence[list[int]]) -> tuple[mx.array, mx.array | None]:
    """Return the token ids of `batch`, each row filled up with zeros behind the text, and a mask that is True
    for the tokens of texts.

    The mask is None if all texts have the same length.
    """
    length = max(map(len, batch))
    ids = mx.array([row + [0] * (length - len(row)) for row in batch])
    if all(len(row) == length for row in batch):
        return ids, None
    return ids, mx.arange(length)[None] < mx.array([len(row) for row in batch])[:, None]


def load_encoder(folder: Path, context_tokens: int) -> Encoder:
    """Return the embedding model in `folder`. Its weights are read from the disk when they are evaluated.

    The model's context is `context_tokens`, or less if the model's own limit is lower. Raises OSError,
    ValueError, KeyError, UnreadableModel or RequestError if the folder does not hold a supported model.
    """
    config = weight_files.read_config(folder)
    model, others = build_encoder(folder)
    modules = sentence_files.read_modules(folder, config)
    steps = sentence_steps(modules, model_kind.default_pooling(config))
    settings = sentence_files.read_sentence_config(folder)
    tokenizer = read_tokenizer(folder, settings.prompt)
    (probe,) = tokenizer.tokenize(["probe"])
    rows, hidden_size = int(config["vocab_size"]), int(config.get("hidden_size") or config["n_embd"])
    check_tokenizer_ids(probe, rows, folder.name)
    limit = sentence_files.context_tokens(folder, config) or context_tokens
    return Encoder(
        model=model,
        tokenizer=tokenizer,
        context_tokens=min(context_tokens, limit),
        dim=output_size(hidden_size, steps),
        steps=steps,
        projections=_projections(folder, steps, others),
        is_normalized=steps.normalizes or settings.similarity == "cosine",
        token_rows=rows,
        probe=probe,
    )


def _projections(folder: Path, steps: SentenceSteps, others: Mapping[str, mx.array]) -> dict[str, mx.array]:
    """Return the weights of all projections of `steps`, the linear layers through which a text's vector goes
    after the pooling. The weights are dequantized if necessary, in float32, and named as `project` expects:
    `i.weight` and `i.bias` for projection i.

    Usually, each projection's weights are in a file of their own, below the model's `folder`. In models
    converted to MLX, they are in `others`, the tensors in the encoder's files that do not belong to the
    encoder. Raises KeyError if weights are missing, and ValueError if their shape is wrong.
    """
    found: dict[str, mx.array] = {}
    for i, dense in enumerate(steps.projections):
        own = folder / dense.path / sentence_files.DENSE_WEIGHTS
        weights = read_weights([own]) if own.is_file() else others
        prefix = "linear" if own.is_file() else f"dense.{i}"
        weight = dense_weight(prefix, (dense.out_features, dense.in_features), weights)
        found[f"{i}.weight"] = weight.astype(mx.float32)
        if dense.bias:
            found[f"{i}.bias"] = weights[f"{prefix}.bias"].astype(mx.float32)
    return found
