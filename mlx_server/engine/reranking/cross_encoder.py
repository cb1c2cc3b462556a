"""Cross-encoders: an encoder that reads a query and a document together, and a head that computes
one logit.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten
from tokenizers import Tokenizer

from mlx_server.engine.embeddings.architectures.build import build_encoder, dense_weight
from mlx_server.engine.generation.prompts.token_ids import check_tokenizer_ids
from mlx_server.engine.reranking.heads import HEADS
from mlx_server.engine.reranking.pairs import TwoTexts
from mlx_server.engine.reranking.reranker import Reranker, ends_in_sigmoid
from mlx_server.model_store.files import sentence_files
from mlx_server.model_store.files.weight_files import read_json_object


class CrossEncoder(nn.Module):
    """An encoder with a head that computes one logit for each pair of a query and a document. A call returns
    the logits of a batch of pairs, of shape (batch), in float32. `Reranker` describes the parameters of the
    call.
    """

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def __call__(self, ids: mx.array, mask: mx.array | None, types: mx.array, lengths: mx.array) -> mx.array:
        return self.head(self.encoder(ids, mask, types).astype(mx.float32), lengths)[:, 0]


def load_cross_encoder(
    folder: Path, config: dict[str, Any], sentence_config: dict[str, Any], context_tokens: int
) -> Reranker:
    """Return the cross-encoder in `folder`. Its weights are read from the disk when they are evaluated.

    `config` is the content of its config.json, and `sentence_config` that of its
    config_sentence_transformers.json; {} if there is no such file. A pair of texts may have at most
    `context_tokens` tokens, or fewer if the model's files have a lower limit.

    Raises OSError, ValueError, KeyError, UnreadableModel or RequestError if the folder does not hold a
    supported model.
    """
    encoder, others = build_encoder(folder)
    head: nn.Module = HEADS[config["model_type"]](config)
    _load_head(head, {name.removeprefix("bert."): weight for name, weight in others.items()})
    model = CrossEncoder(encoder, head)
    model.eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    pairs = TwoTexts(tokenizer, _has_types(folder))
    (probe,) = pairs.pairs("probe", ["probe"], None)
    rows = int(config["vocab_size"])
    check_tokenizer_ids(probe.ids, rows, folder.name)
    limit = sentence_files.context_tokens(folder, config) or context_tokens
    return Reranker(
        model=model,
        tokenizer=pairs,
        context_tokens=min(context_tokens, limit),
        token_rows=rows,
        applies_sigmoid=ends_in_sigmoid(config, sentence_config),
        probe=probe,
    )


def _load_head(head: nn.Module, weights: Mapping[str, mx.array]) -> None:
    """Set the weights of the head, in float32, so that scores are not rounded to bfloat16. They become dense
    even if the files have them quantized, because they are small.
    """
    loaded = []
    for name, parameter in tree_flatten(head.parameters()):
        layer, _, part = name.rpartition(".")
        is_matrix = part == "weight" and parameter.ndim == 2
        weight = dense_weight(layer, parameter.shape, weights) if is_matrix else weights[name]
        loaded.append((name, weight.astype(mx.float32)))
    head.load_weights(loaded)


def _has_types(folder: Path) -> bool:
    """Return False if the tokenizer's configuration says that the model has no token types."""
    path = folder / "tokenizer_config.json"
    names = read_json_object(path).get("model_input_names") if path.is_file() else None
    return not isinstance(names, list) or "token_type_ids" in names
