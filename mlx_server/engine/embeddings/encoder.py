"""Turn texts into unit vectors: tokenize, truncate, batch by length, encode, pool, normalize."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from tokenizers import Tokenizer

from mlx_server.engine.embeddings.bert import Bert, BertShape, rename_weights
from mlx_server.engine.generation.prompts.token_ids import check_tokenizer_ids

_MAX_BATCH_TOKENS = 2048
"""The padded tokens of one forward pass. Other requests run between two passes."""


@dataclass(frozen=True)
class Encoder:
    """A loaded embedding model, whose vectors have `dim` numbers.

    With `pools_first_token`, a text's vector is the state of its first token; otherwise it is the mean over
    all tokens. The model has weights for `token_rows` tokens. The tokenizer adds `special_tokens` tokens to
    each text. `probe` holds the tokens of a short text, for tests of the model.
    """

    model: Bert
    tokenizer: Tokenizer
    context_tokens: int
    dim: int
    pools_first_token: bool
    token_rows: int
    special_tokens: int
    probe: list[int]

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, special tokens included, at full length."""
        return [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]

    def truncate(self, ids: list[int], limit: int) -> list[int]:
        """Return `ids` shortened to `limit` tokens, with the closing special token."""
        return ids if len(ids) <= limit else [*ids[: limit - 1], ids[-1]]

    def encode(self, batch: Sequence[list[int]]) -> list[list[float]]:
        """Compute the vectors of texts, given by their token ids, and return them in the same order."""
        length = max(map(len, batch))
        ids = mx.array([row + [0] * (length - len(row)) for row in batch])
        mask = mx.array([[1.0] * len(row) + [0.0] * (length - len(row)) for row in batch])
        hidden = self.model(ids, mask)
        pooled = hidden[:, 0] if self.pools_first_token else _mean(hidden, mask)
        norm = mx.maximum(mx.linalg.norm(pooled, axis=-1, keepdims=True), 1e-12)
        return (pooled / norm).tolist()  # type: ignore[return-value]


def _mean(hidden: mx.array, mask: mx.array) -> mx.array:
    return (hidden * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)


def batch_by_length(lengths: Sequence[int], max_tokens: int = _MAX_BATCH_TOKENS) -> Iterator[list[int]]:
    """Yield the indices of `lengths` in groups of similar length.

    A group, padded to its longest text, has at most `max_tokens` tokens unless it is a single text.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if batch and lengths[index] * (len(batch) + 1) > max_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def load_encoder(folder: Path, context_tokens: int) -> Encoder:
    """Return the model in `folder`. Its weights are read from the disk when they are evaluated.

    Raises OSError, ValueError, KeyError or RequestError if the folder does not hold a supported model.
    """
    shape = BertShape.from_config(_json(folder / "config.json"))
    model = Bert(shape)
    weights: dict[str, mx.array] = {}
    for path in sorted(folder.glob("model*.safetensors")):
        weights.update(mx.load(str(path)))  # type: ignore[arg-type]
    model.load_weights(rename_weights(weights))
    model.set_dtype(mx.float32)
    model.eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()  # the tokenizer.json of all-minilm truncates at 128 tokens
    probe = tokenizer.encode("probe").ids
    check_tokenizer_ids(probe, shape.vocab_size, folder.name)
    return Encoder(
        model=model,
        tokenizer=tokenizer,
        context_tokens=min(context_tokens, shape.max_position_embeddings),
        dim=shape.hidden_size,
        pools_first_token=_pools_first_token(folder),
        token_rows=shape.vocab_size,
        special_tokens=tokenizer.num_special_tokens_to_add(False),
        probe=probe,
    )


def _pools_first_token(folder: Path) -> bool:
    path = folder / "1_Pooling" / "config.json"
    pooling = _json(path) if path.is_file() else {}
    if pooling.get("pooling_mode_max_tokens") or pooling.get("pooling_mode_mean_sqrt_len_tokens"):
        raise ValueError("its pooling mode is neither mean nor first token")
    return bool(pooling.get("pooling_mode_cls_token"))


def _json(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text("utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} is not a JSON object")
    return content
