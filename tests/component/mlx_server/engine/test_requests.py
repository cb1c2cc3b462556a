"""What the engine answers to requests that it cannot serve, and to requests other than generations."""

import json
from pathlib import Path

import pytest

from mlx_server.protocol import (
    Alive,
    Cancel,
    Done,
    Embed,
    Embedding,
    Generate,
    Hello,
    Load,
    Loaded,
    Loading,
    Probe,
    Probed,
    Token,
    Unload,
    Unloaded,
    unpack_vectors,
)
from tests.component.mlx_server.engine.conftest import CHAT, EMBED, chat

pytestmark = pytest.mark.model
REFERENCE = json.loads(Path(__file__).with_name("reference_vectors.json").read_text("utf-8"))
LONG_TEXT = " ".join(f"word {i} of a text that is longer than the context" for i in range(60))


def test_engine_sends_hello_first_with_its_pid_and_blas_library(engine):
    hello = engine.events[0]
    assert isinstance(hello, Hello)
    assert hello.pid == engine.process.pid
    assert hello.blas.split(":")[0] in ("openblas", "accelerate")


def test_engine_alive_event_lists_the_loaded_models(engine):
    alive = engine.wait(lambda e: isinstance(e, Alive) and len(e.loaded) == 2)
    assert {m.model: m.kind for m in alive.loaded} == {CHAT: "generate", EMBED: "embed"}
    assert all(m.bytes > 50_000_000 and m.expires_in_s is None for m in alive.loaded)
    assert alive.active_bytes >= sum(m.bytes for m in alive.loaded)


def test_embeddings_equal_the_vectors_of_sentence_transformers(engine):
    texts = (*REFERENCE["texts"][:3], LONG_TEXT)
    engine.send(Embed("reference", EMBED, texts))
    answer = engine.answer("reference", Embedding)
    ours = unpack_vectors(answer.vectors, answer.dim)
    theirs = [unpack_vectors(vector, REFERENCE["dim"])[0] for vector in REFERENCE["vectors"]]
    for mine, reference in zip(ours, theirs, strict=True):
        assert sum(a * b for a, b in zip(mine, reference, strict=True)) >= 0.9999
    assert answer.prompt_tokens > 256  # the long text, cut at the context, and the others
    assert answer.embed_s > 0


def test_embedding_of_a_text_is_the_same_alone_and_beside_other_texts(engine):
    engine.send(Embed("alone", EMBED, ("short",)), Embed("together", EMBED, (LONG_TEXT, "short", "a b c")))
    alone = unpack_vectors(engine.answer("alone", Embedding).vectors, 384)[0]
    together = unpack_vectors(engine.answer("together", Embedding).vectors, 384)[1]
    assert sum(a * b for a, b in zip(alone, together, strict=True)) >= 0.99999


def test_embedding_of_a_text_longer_than_the_context_without_truncation_fails_with_both_token_counts(engine):
    engine.send(Embed("too long", EMBED, ("fine", LONG_TEXT), truncate=False))
    failed = engine.answer("too long", Embedding)
    assert failed.code == "context_exceeded"
    assert failed.fields["prompt_tokens"] > failed.fields["context_tokens"] == 256


def test_prompt_longer_than_the_context_fails_with_both_token_counts(engine):
    engine.send(chat("past", "word " * 100, context_tokens=64))
    failed = engine.answer("past", Done)
    assert failed.code == "context_exceeded"
    assert not failed.retryable
    assert failed.fields["context_tokens"] == 64
    assert str(failed.fields["prompt_tokens"]) in failed.message


def test_answer_without_max_tokens_ends_when_the_context_is_full(engine):
    engine.send(chat("to the end", "Tell me a very long story.", max_tokens=None, context_tokens=50))
    done = engine.answer("to the end", Done)
    assert done.reason == "length"
    assert done.usage.prompt_tokens + done.usage.completion_tokens == 50


@pytest.mark.parametrize(
    ("op", "code"),
    [
        (Generate("e1", CHAT, "text", prompt=""), "empty_prompt"),
        (Generate("e2", CHAT, "chat", messages=()), "empty_prompt"),
        (Embed("e3", EMBED, ()), "empty_prompt"),
        (Embed("e4", CHAT, ("text",)), "not_an_embedding_model"),
        (Generate("e5", EMBED, "text", prompt="text"), "not_a_chat_model"),
        (Generate("e6", "nobody", "text", prompt="text"), "model_not_found"),
        (Generate("e7", "broken", "text", prompt="text"), "model_load_failed"),
        (Generate("e9", CHAT, "text", prompt="half a character: \ud83d"), "invalid_request"),
        (Embed("e10", EMBED, ("half a character: \ud83d",)), "invalid_request"),
        (Generate("e8", CHAT, "chat", messages=({"content": "no role"},)), "invalid_request"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.id,
)
def test_request_with_invalid_input_or_an_unusable_model_fails_with_the_error_code_of_its_cause(
    engine, op, code
):
    engine.send(op)
    failed = engine.answer(op.id, Done, Embedding)
    assert (failed.code, failed.retryable) == (code, False)
    assert failed.message


def test_unknown_model_error_lists_the_installed_models(engine):
    engine.send(Load("unknown", "nobody:latest"))
    assert CHAT in engine.answer("unknown", Loaded).message


def test_engine_probe_of_both_loaded_models_succeeds(engine):
    engine.send(Probe("probe"))
    assert engine.answer("probe", Probed).ok


def test_unloaded_model_is_loaded_again_by_the_next_request(engine):
    engine.send(Unload("go", "all-minilm"))
    assert engine.answer("go", Unloaded).model == EMBED
    engine.send(Embed("back", "all-minilm", ("text",)))
    answer = engine.answer("back", Embedding)
    assert answer.load_s > 0
    assert any(isinstance(e, Loading) and e.model == EMBED for e in engine.events)
    engine.send(Load("again", EMBED))
    assert engine.answer("again", Loaded).load_s == 0.0


def test_embedding_of_megabytes_delays_no_stream_and_no_other_text_and_can_be_cancelled(engine):
    """A tokenizer takes up to 7 s for a megabyte; earlier, all streams waited for that long."""
    engine.send(chat("stream beside texts", "Tell me a long story.", max_tokens=None))
    engine.wait(lambda e: isinstance(e, Token) and e.id == "stream beside texts" and e.index == 3)
    engine.send(Embed("megabytes", EMBED, ("川本語" * 80_000,) * 40))
    engine.send(Embed("short", EMBED, ("a short text",)))
    assert isinstance(engine.answer("short", Embedding), Embedding)
    since = len(engine.tokens("stream beside texts"))
    engine.wait(
        lambda e: isinstance(e, Token) and e.id == "stream beside texts" and e.index > since + 20,
        timeout_s=40,
    )
    engine.send(Cancel("megabytes"), Cancel("stream beside texts"))
    assert engine.answer("megabytes", Done).reason == "cancelled"
    engine.answer("stream beside texts", Done)
