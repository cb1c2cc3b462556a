"""The tokens of a text to embed: cut at the model's context, or at a shorter one that the client asks for."""

from __future__ import annotations

from typing import Any, cast

import pytest

from mlx_server.engine.embeddings.embedding_job import EmbeddingJob
from mlx_server.engine.embeddings.encoder import Encoder
from mlx_server.engine.embeddings.text_tokenizer import TextTokenizer
from mlx_server.engine.errors import RequestError
from mlx_server.model_store.files.sentence_modules import SentenceSteps
from mlx_server.protocol import Embed

CLS, SEP = 1, 2


class Tokenizer:
    """Makes a token of each letter, between two special tokens."""

    def encode_batch(self, texts: list[str]) -> list[Any]:
        return [type("Encoding", (), {"ids": [CLS, *map(ord, text), SEP]}) for text in texts]


class Model:
    def __call__(self, ids: Any, mask: Any) -> Any:
        raise AssertionError("only tokens are made here")


def tokens(text: str, context_tokens: int | None, *, truncate: bool = True) -> list[int]:
    tokenizer = TextTokenizer(cast(Any, Tokenizer()), "", 0, special_tokens=2, closing_tokens=1)
    steps = SentenceSteps(("mean",), pools_prompt=True, projections=(), normalizes=True)
    encoder = Encoder(cast(Any, Model()), tokenizer, 8, 4, steps, {}, True, 1000, [])
    op = Embed("r", "m", (text,), truncate, context_tokens=context_tokens)
    job = EmbeddingJob(op, encoder, 0.0, 0.0)
    assert job.tokenize_slice()
    return job._token_ids[0]


@pytest.mark.parametrize(
    ("context", "kept"), [(3, "a"), (5, "abc"), (8, "abcdef"), (99, "abcdef"), (None, "abcdef")]
)
def test_embedding_text_is_cut_to_num_ctx_or_to_the_models_context_if_that_is_shorter(context, kept):
    """`options.num_ctx` of /api/embed was ignored; Ollama embeds only the first token for num_ctx 3."""
    assert tokens("abcdefghij", context) == [CLS, *map(ord, kept), SEP]


def test_embedding_text_longer_than_the_context_is_refused_if_truncate_is_off():
    with pytest.raises(RequestError, match="input length exceeds the context length") as caught:
        tokens("abcd", 3, truncate=False)
    assert (caught.value.code, caught.value.fields) == (
        "context_exceeded",
        {"prompt_tokens": 6, "context_tokens": 3},
    )
    assert tokens("a", 3, truncate=False) == [CLS, ord("a"), SEP]


@pytest.mark.parametrize("context", [0, 1, 2])
@pytest.mark.parametrize("truncate", [True, False])
def test_embedding_context_too_short_for_any_text_is_refused_with_ollamas_message(context, truncate):
    with pytest.raises(RequestError, match="input after truncation exceeds maximum context length"):
        tokens("a", context, truncate=truncate)
