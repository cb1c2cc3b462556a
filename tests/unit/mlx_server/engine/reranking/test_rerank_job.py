"""The tokens of a pair: the document is cut at its end, the query never is."""

from __future__ import annotations

from typing import Any, cast

import pytest

from mlx_server.engine.embeddings.batches import MAX_BATCH_TOKENS
from mlx_server.engine.errors import EngineError, RequestError
from mlx_server.engine.reranking.pairs import JudgePrompt, Pair
from mlx_server.engine.reranking.rerank_job import MAX_READ_CHARS, RerankJob
from mlx_server.engine.reranking.reranker import Reranker, ends_in_sigmoid
from mlx_server.protocol import Rerank

CLS, SEP = 1, 2


class Letters:
    """Makes a token of each letter; both texts stand between special tokens."""

    def pairs(self, query, documents, instruction):
        head = [CLS, *map(ord, query), SEP]
        return [
            Pair([*head, *map(ord, text), SEP], [0] * len(head) + [1] * (len(text) + 1), len(head),
                 len(head) + len(text))
            for text in documents
        ]  # fmt: skip


class Model:
    """Scores a pair by the length of its row, in batches whose shapes it records."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, int]] = []

    def __call__(self, ids: Any, mask: Any, types: Any, lengths: Any) -> Any:
        self.shapes.append(tuple(ids.shape))
        return lengths


def reranker(context_tokens: int = 12, model: Any = None, *, applies_sigmoid: bool = False) -> Reranker:
    tokenizer = cast(Any, Letters())
    return Reranker(model or Model(), tokenizer, context_tokens, 1000, applies_sigmoid, Pair([1], [0], 0, 0))


def pairs_of(documents: tuple[str, ...], query: str = "abc", **fields: Any) -> list[Pair]:
    job = RerankJob(Rerank("r", "m", query, documents, **fields), reranker(), 0.0, 0.0)
    assert job.tokenize_slice()
    return job._pairs


@pytest.mark.parametrize(
    ("fields", "kept"),
    [({}, "defghi"), ({"context_tokens": 8}, "de"), ({"context_tokens": 99}, "defghi"),
     ({"max_document_tokens": 4}, "defg"), ({"max_document_tokens": 99}, "defghi")],
)  # fmt: skip
def test_rerank_pair_with_a_long_document_cuts_only_the_end_of_the_document(fields, kept):
    (pair,) = pairs_of(("defghijklmno",), **fields)
    assert pair.ids == [CLS, *map(ord, "abc"), SEP, *map(ord, kept), SEP]
    assert pair.types == [0] * 5 + [1] * (len(kept) + 1)
    assert pair.ids[pair.start : pair.end] == list(map(ord, kept))


def test_rerank_pair_that_fits_the_context_is_not_cut():
    assert [len(pair.ids) for pair in pairs_of(("", "defghi"))] == [6, 12]


@pytest.mark.parametrize("documents", [("d",), ("defgh" * 99,)])
@pytest.mark.parametrize("truncate", [True, False])
def test_rerank_query_that_leaves_no_room_for_a_document_is_refused(documents, truncate):
    with pytest.raises(
        RequestError, match="the query is too long: 12 tokens or 12|the query is too long"
    ) as caught:
        pairs_of(documents, query="abcdefghi", truncate=truncate)
    assert caught.value.code == "context_exceeded"
    assert "documents are cut to fit, the query never is" in str(caught.value)


def test_enormous_rerank_query_is_refused_before_it_is_tokenized():
    with pytest.raises(RequestError, match=f"it has {MAX_READ_CHARS + 1} characters, and "):
        pairs_of(("a",), query="q" * (MAX_READ_CHARS + 1))


def test_too_long_rerank_document_without_truncate_is_refused_unless_cut_by_max_document_tokens():
    with pytest.raises(RequestError, match="let it be truncated"):
        pairs_of(("defghij",), truncate=False)
    (pair,) = pairs_of(("defghij",), truncate=False, max_document_tokens=6)
    assert len(pair.ids) == 12


def test_rerank_request_without_documents_is_refused():
    with pytest.raises(RequestError, match="at least one document"):
        pairs_of(())


def test_rerank_tokens_beyond_the_embedding_matrix_are_refused():
    with pytest.raises(RequestError, match="do not belong together"):
        pairs_of(("ﬃ",))


def test_rerank_documents_are_batched_by_length_and_scored_in_request_order():
    model = Model()
    documents = ("a" * 700, "b", "c" * 699, "dd") + ("e" * 500,) * 3
    job = RerankJob(Rerank("r", "m", "q", documents), reranker(1000, model), 0.0, load_s=0.25)
    while not job.tokenize_slice():
        pass
    while not job.compute_batch(MAX_BATCH_TOKENS):
        pass
    answer = job.answer(2.0)
    assert answer.scores == tuple(4.0 + len(text) for text in documents)
    assert answer.prompt_tokens == sum(4 + len(text) for text in documents)
    assert (answer.load_s, answer.rank_s) == (0.25, 2.0)
    assert all(rows * length <= 2048 for rows, length in model.shapes)
    assert len(model.shapes) < len(documents)


def test_rerank_score_has_a_sigmoid_only_if_the_model_applies_one_and_raw_scores_are_off():
    assert reranker(applies_sigmoid=True).score(0.0, raw=False) == 0.5
    assert reranker(applies_sigmoid=True).score(-1e30, raw=False) == 0.0
    assert reranker(applies_sigmoid=True).score(3.0, raw=True) == 3.0
    assert reranker(applies_sigmoid=False).score(3.0, raw=False) == 3.0


def test_rerank_scores_after_a_sigmoid_keep_the_order_of_large_logits():
    """With 32 bits, two documents with logits of 20 and 25 both have the score 1."""
    score = reranker(applies_sigmoid=True).score
    assert score(20.0, raw=False) < score(25.0, raw=False) < 1


def test_rerank_score_that_is_not_a_number_is_an_engine_error():
    broken = reranker(model=lambda ids, mask, types, lengths: lengths * float("nan"))
    job = RerankJob(Rerank("r", "m", "q", ("a",)), broken, 0.0, 0.0)
    assert job.tokenize_slice() and job.compute_batch(MAX_BATCH_TOKENS)
    with pytest.raises(EngineError, match="not a finite number"):
        job.answer(1.0)


IDENTITY, SIGMOID = "torch.nn.modules.linear.Identity", "torch.nn.modules.activation.Sigmoid"


@pytest.mark.parametrize(
    ("config", "sentence_config", "expected"),
    [
        ({}, {}, True),
        ({"sbert_ce_default_activation_function": IDENTITY}, {}, False),
        ({"sentence_transformers": {"activation_fn": IDENTITY}}, {}, False),
        ({"sentence_transformers": {"activation_fn": SIGMOID}}, {}, True),
        ({"sentence_transformers": {"activation_fn": IDENTITY}}, {"activation_fn": SIGMOID}, True),
        ({}, {"activation_fn": IDENTITY}, False),
    ],
)
def test_rerank_sigmoid_follows_from_the_models_configuration(config, sentence_config, expected):
    assert ends_in_sigmoid(config, sentence_config) is expected


def test_reranker_with_an_activation_other_than_sigmoid_or_none_is_refused():
    with pytest.raises(ValueError, match="Tanh"):
        ends_in_sigmoid({}, {"activation_fn": "torch.nn.modules.activation.Tanh"})


def test_rerank_prompt_of_a_language_model_has_the_instruction_and_cuts_only_the_document():
    prompt = JudgePrompt(lambda texts: [list(map(ord, text)) for text in texts])
    (pair,) = prompt.pairs("why", ["because of the rain"], "find causes")
    text = "".join(map(chr, pair.ids))
    assert "<Instruct>: find causes\n<Query>: why\n<Document>: because of the rain<|im_end|>" in text
    short = "".join(map(chr, pair.cut(len(text) - 9).ids))
    assert "<Document>: because of<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n" in short
    (plain,) = prompt.pairs("why", [""], None)
    assert "<Instruct>: Given a web search query," in "".join(map(chr, plain.ids))
