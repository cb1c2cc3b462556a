"""The engine as a process: how it ends, and what it does when memory has room for one model."""

import signal

import pytest

from mlx_server.protocol import Done, Embed, Embedding, Failed, Ready, Shutdown, Token, Unloaded
from tests.component.mlx_server.engine.conftest import CHAT, EMBED, chat

pytestmark = pytest.mark.model
STAGES = [
    "stop_scheduler",
    "drain",
    "persist_caches",
    "shut_engine_down",
    "unload_models",
    "release_gpu_buffers",
]


def assert_graceful(engine):
    assert engine.process.wait(60) == 0, engine.log.read_text()
    logged = engine.logged()
    assert [line["stage"] for line in logged if line["event"] == "shutdown_stage_done"] == STAGES
    assert logged[-1]["event"] == "server_shutdown_complete"


def test_idle_model_is_unloaded_for_another_if_only_one_may_be_loaded(start):
    engine = start(VESTAL_MLX__MAX_LOADED_MODELS="1", MLX_PRELOAD_MODELS="[]")
    assert engine.wait(lambda e: isinstance(e, Ready)).loaded == ()
    engine.send(chat("first", "Say hello.", max_tokens=4), Embed("second", EMBED, ("text",)))
    assert engine.answer("first", Done).reason == "length"
    assert isinstance(engine.answer("second", Embedding), Embedding)
    assert [e.model for e in engine.events if isinstance(e, Unloaded)] == [CHAT]
    # SIGTERM with nothing in flight
    engine.process.send_signal(signal.SIGTERM)
    assert_graceful(engine)


def test_engine_that_gets_sigterm_finishes_running_requests_and_refuses_new_ones(start):
    engine = start(MLX_PRELOAD_MODELS=CHAT)
    # So long that it still runs when a busy machine lets the test send the signal and the second request.
    engine.send(chat("running", "Tell me a story.", max_tokens=600))
    engine.wait(lambda e: isinstance(e, Token) and e.index == 2)
    engine.process.send_signal(signal.SIGTERM)
    engine.wait(lambda e: any(line["event"] == "shutdown_asked" for line in engine.logged()))
    engine.send(chat("late", "Too late?"))
    late = engine.answer("late", Done)
    assert (late.code, late.retryable) == ("engine_unavailable", True)
    assert engine.answer("running", Done).usage.completion_tokens == 600
    assert_graceful(engine)


def test_engine_shutdown_without_drain_time_fails_running_requests_as_retryable(start):
    engine = start(MLX_PRELOAD_MODELS=CHAT)
    engine.send(chat("cut", "Tell me a story.", max_tokens=4000))
    engine.wait(lambda e: isinstance(e, Token) and e.index == 2)
    engine.send(Shutdown(drain_s=0.0))
    failed = engine.answer("cut", Done)
    assert isinstance(failed, Failed)
    assert failed.retryable
    assert_graceful(engine)


def test_engine_whose_gateway_is_gone_shuts_down_gracefully(start):
    engine = start(MLX_PRELOAD_MODELS=EMBED)
    engine.wait(lambda e: isinstance(e, Ready))
    engine.socket.close()
    assert_graceful(engine)
