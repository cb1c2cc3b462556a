"""A grammar is compiled outside the MLX thread: other requests continue, and the request that waits for the
grammar can be cancelled."""

import time

import pytest

from mlx_server.protocol import (
    Alive,
    Cancel,
    Done,
    Failed,
    Generate,
    Load,
    Loaded,
    Prefill,
    Ready,
    Shutdown,
    Token,
)
from tests.component.mlx_server.engine.conftest import CHAT, chat

pytestmark = pytest.mark.model

ASK = "Invent a person and describe them."
SMALL = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}


def big(name: str) -> dict:
    """Return a schema of 50,000 characters that takes at least 0.2 s to compile. Each `name` gives a
    different one.
    """
    groups = {
        f"{name}{group}": {
            "type": "object",
            "properties": {f"{name}{group}_{field:03d}": {"type": "string"} for field in range(400)},
        }
        for group in range(4)
    }
    return {"type": "object", "properties": groups, "required": list(groups)}


def tokens_while_it_waits(engine, op: Generate, stream: str) -> int:
    """Return how many tokens `stream` got between the arrival of `op` and the first event about `op`."""
    engine.send(Load(f"before {op.id}", CHAT), op)
    received = engine.answer(f"before {op.id}", Loaded)
    first = engine.wait(lambda e: isinstance(e, (Prefill, Failed)) and e.id == op.id)
    events = engine.events[engine.events.index(received) : engine.events.index(first)]
    return sum(isinstance(e, Token) and e.id == stream for e in events)


def test_stream_continues_while_a_large_json_schema_is_compiled_for_another_request(engine):
    engine.send(chat("stream", "Tell me a long story about a lighthouse.", max_tokens=4000))
    engine.wait(lambda e: isinstance(e, Token) and e.id == "stream" and e.index == 5)
    compiling = chat("compiled", ASK, max_tokens=4, json_schema=big("a"))
    assert tokens_while_it_waits(engine, compiling, "stream") >= 2
    engine.answer("compiled", Done)
    waits = []
    for number in range(20):
        compiled = chat(f"again {number}", ASK, max_tokens=4, json_schema=big("a"))
        waits.append(tokens_while_it_waits(engine, compiled, "stream"))
        assert engine.text(compiled.id) == engine.text("compiled")
        if waits[-1] <= 3:
            break  # the least counts: a busy machine delays one or the other
    assert min(waits) <= 3
    engine.send(Cancel("stream"))
    engine.answer("stream", Done)


def test_grammar_compilation_whose_request_is_cancelled_leaves_the_engine_idle(engine):
    engine.send(chat("left", ASK, json_schema=big("b")), chat("kept", ASK, json_schema=SMALL), Cancel("left"))
    done = engine.answer("left", Done)
    assert (done.reason, engine.tokens("left")) == ("cancelled", [])
    assert engine.text("kept")
    engine.wait_for_next(lambda e: isinstance(e, Alive) and not e.working)


def test_engine_answers_a_load_request_while_a_grammar_is_compiled(engine):
    engine.send(chat("slow", ASK, max_tokens=4, json_schema=big("c")), Load("beside", CHAT))
    loaded = engine.answer("beside", Loaded)
    assert engine.answer("slow", Done).reason == "length"
    first = next(e for e in engine.events if isinstance(e, (Prefill, Token)) and e.id == "slow")
    assert engine.events.index(loaded) < engine.events.index(first)


def test_engine_asked_to_stop_during_a_grammar_compilation_answers_that_request_before_it_exits(start):
    engine = start()
    engine.wait(lambda e: isinstance(e, Ready))
    engine.send(chat("last", ASK, max_tokens=4, json_schema=big("d")), Shutdown(60.0))
    assert engine.answer("last", Done).reason == "length"
    assert engine.process.wait(60) == 0


def test_engine_stopped_without_drain_time_fails_a_request_that_waits_for_its_grammar(start):
    engine = start()
    engine.wait(lambda e: isinstance(e, Ready))
    engine.send(chat("refused", ASK, json_schema=big("e")), Shutdown(0.0))
    failed = engine.answer("refused", Done)
    assert (failed.code, failed.retryable) == ("engine_unavailable", True)
    started = time.monotonic()
    assert engine.process.wait(60) == 0
    assert time.monotonic() - started < 10
