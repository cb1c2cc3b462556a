"""Rerankers that are language models. The score tells how much more likely "yes" is than "no" as the next
token.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models import qwen3
from mlx_lm.models.cache import KVCache, make_prompt_cache
from mlx_lm.utils import dequantize_model, load_model
from tokenizers import Tokenizer

from mlx_server.engine.device import computes_on_gpu
from mlx_server.engine.generation.prompts.token_ids import check_tokenizer_ids
from mlx_server.engine.reranking.pairs import INSTRUCTION, JudgePrompt
from mlx_server.engine.reranking.reranker import Reranker, ends_in_sigmoid
from mlx_server.model_store.files.weight_files import read_json_object

CLASSIFIER = "Qwen3ForSequenceClassification"


class Judge(nn.Module):
    """A language model that answers whether a document matches a query with "yes" or "no". `yes` and `no` are
    the ids of these tokens.

    A call returns, for a batch of pairs of a query and a document, the logit of `yes` minus the logit of
    `no`, or only the logit of `yes` if `no` is None, of shape (batch), in float32. `Reranker` describes the
    parameters of the call.
    """

    def __init__(self, language_model: Any, yes: int, no: int | None) -> None:
        super().__init__()
        self.language_model, self.yes, self.no = language_model, yes, no

    def __call__(self, ids: mx.array, mask: mx.array | None, types: mx.array, lengths: mx.array) -> mx.array:
        model = self.language_model
        layer = model.lm_head if "lm_head" in model else model.model.embed_tokens
        answers = [self.yes] if self.no is None else [self.yes, self.no]
        logits = _float32_logits(layer, answers, _last_states(model, ids, lengths))
        return logits[:, 0] if self.no is None else logits[:, 0] - logits[:, 1]


class JudgeWithHead(nn.Module):
    """A language model whose output layer was replaced by a layer that computes one logit for a pair of a
    query and a document. A call returns the logits of a batch of pairs, of shape (batch), in float32.
    `Reranker` describes the parameters of the call.
    """

    def __init__(self, language_model: Any) -> None:
        super().__init__()
        self.language_model = language_model

    def __call__(self, ids: mx.array, mask: mx.array | None, types: mx.array, lengths: mx.array) -> mx.array:
        last = _last_states(self.language_model, ids, lengths)
        return _float32_logits(self.language_model.score, [0], last)[:, 0]


def _float32_logits(layer: Any, outputs: list[int], states: mx.array) -> mx.array:
    """Return these `outputs` of an output layer or embedding without a bias, in float32: an array of shape
    (batch, outputs). `states` has the shape (batch, hidden).

    On a GPU, the layer itself would return bfloat16: the logits of yes and no would be rounded to multiples
    of 0.125 before they are subtracted, and many documents would get equal scores.
    """
    rows = mx.array(outputs)
    weight = layer["weight"][rows]
    if "scales" in layer:
        scales, biases = layer["scales"][rows], layer.get("biases")
        if biases is not None:  # without biases, scales are a type of their own, and dequantizing is exact
            scales, biases = scales.astype(mx.float32), biases[rows].astype(mx.float32)
        how = {"group_size": layer.group_size, "bits": layer.bits, "mode": layer.mode}
        weight = mx.dequantize(weight, scales, biases, **how)
    return states.astype(mx.float32) @ weight.astype(mx.float32).T


def _last_states(language_model: Any, ids: mx.array, lengths: mx.array) -> mx.array:
    """Return the hidden state of the last token of each row: (batch, hidden).

    The beginning that all rows share, with the instruction and the query, is computed only once. No mask is
    needed, because with causal attention no token attends to the padding behind it.
    """
    rows, caches = ids.shape[0], None
    shared = shared_tokens(ids, lengths) if rows > 1 else 0
    if shared:
        first = make_prompt_cache(language_model)
        language_model.model(ids[:1, :shared], first)
        caches = [_repeated(cache, rows) for cache in first]
        ids, lengths = ids[:, shared:], lengths - shared
    hidden = language_model.model(ids, caches)
    return hidden[mx.arange(rows), lengths - 1]


def shared_tokens(ids: mx.array, lengths: mx.array) -> int:
    """Return how many tokens at the beginning are equal in all rows, but at most one less than the shortest
    row has.
    """
    is_same = mx.all(ids == ids[:1], axis=0).astype(mx.int32)
    return cast(int, mx.minimum(mx.cumprod(is_same).sum(), lengths.min() - 1).item())


def _repeated(cache: KVCache, rows: int) -> KVCache:
    """Return a cache with `rows` rows, which all have the keys and values of the single row in `cache`."""
    repeated = KVCache()
    keys, values = cache.keys_and_values()
    repeated.state = (mx.repeat(keys, rows, axis=0), mx.repeat(values, rows, axis=0), cache.offset)
    return repeated


class _Qwen3WithScore(qwen3.Model):
    """mlx-lm's Qwen3 with the additional layer `score`, the head of a classifier with one label."""

    def __init__(self, args: Any) -> None:
        super().__init__(args)
        self.score = nn.Linear(args.hidden_size, 1, bias=False)


def load_judge(
    folder: Path, config: dict[str, Any], sentence_config: dict[str, Any], context_tokens: int
) -> Reranker:
    """Return the language model in `folder` as a reranker. Its weights are read from the disk when they are
    evaluated.

    `config` is the content of its config.json, and `sentence_config` that of its
    config_sentence_transformers.json; {} if there is no such file. A pair of a query and a document may have
    at most `context_tokens` tokens.

    Raises OSError, ValueError, KeyError or RequestError if the folder does not hold a supported model.
    """
    is_classifier = CLASSIFIER in (config.get("architectures") or ())
    if is_classifier:
        language_model, _ = load_model(
            folder,
            lazy=True,
            model_config={"tie_word_embeddings": True},  # the classifier has no head for tokens
            get_model_classes=lambda config: (_Qwen3WithScore, qwen3.ModelArgs),
        )
    else:
        language_model, _ = load_model(folder, lazy=True)
    if not computes_on_gpu():
        # MLX's CPU build is ten times slower with bfloat16, and a hundred times with quantized weights.
        if config.get("quantization"):
            language_model = dequantize_model(language_model)
        language_model.set_dtype(mx.float32)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()

    def encode(texts: Any) -> list[list[int]]:
        return [found.ids for found in tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    pairs = JudgePrompt(encode, _default_instruction(sentence_config))
    (probe,) = pairs.pairs("probe", ["probe"], None)
    rows = language_model.model.embed_tokens.weight.shape[0]
    check_tokenizer_ids(probe.ids, rows, folder.name)
    model: nn.Module = (
        JudgeWithHead(language_model)
        if is_classifier
        else Judge(language_model, *_answers(folder, tokenizer))
    )
    model.eval()
    return Reranker(
        model=model,
        tokenizer=pairs,
        context_tokens=context_tokens,
        token_rows=rows,
        applies_sigmoid=ends_in_sigmoid(config, sentence_config),
        probe=probe,
    )


def _answers(folder: Path, tokenizer: Tokenizer) -> tuple[int, int | None]:
    """Return the token ids for yes and no, as sentence-transformers' module config names them; else the ids
    of the words "yes" and "no". The second is None if there is no token for no. Raises ValueError if there is
    no token for yes.
    """
    module = folder / "1_LogitScore" / "config.json"
    named = read_json_object(module) if module.is_file() else {}
    yes = named.get("true_token_id", tokenizer.token_to_id("yes"))
    no = named.get("false_token_id", None if "true_token_id" in named else tokenizer.token_to_id("no"))
    if not isinstance(yes, int) or not (no is None or isinstance(no, int)):
        raise ValueError('its vocabulary has no token "yes"')
    return yes, no


def _default_instruction(sentence_config: dict[str, Any]) -> str:
    """Return the instruction for requests that have none, from sentence-transformers' configuration or else
    INSTRUCTION.
    """
    prompts = sentence_config.get("prompts")
    prompt = prompts.get(sentence_config.get("default_prompt_name")) if isinstance(prompts, dict) else None
    return prompt if isinstance(prompt, str) and prompt else INSTRUCTION
