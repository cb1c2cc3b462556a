"""A shutdown at any moment, and with a slow disk, runs all six stages and exits with code 0."""

from __future__ import annotations

import signal
import time

import pytest

from mlx_server.protocol import Done, Failed, Hello, Loading, Prefill, Ready, Sampling, Token
from tests.component.mlx_server.engine.conftest import CHAT, Engine, chat
from tests.disks.slow_disk import slow_disk

pytestmark = [pytest.mark.model, pytest.mark.timeout(240)]
STAGES = [
    "stop_scheduler",
    "drain",
    "persist_caches",
    "shut_engine_down",
    "unload_models",
    "release_gpu_buffers",
]
LONG = " ".join(f"On day {day} the keeper noted {day * 7} ships and {day * 3} gulls." for day in range(300))


def stages_of(engine: Engine, timeout_s: float = 60.0) -> dict[str, dict]:
    """Return the logged shutdown stages by name, after checking that the engine ended with code 0."""
    assert engine.process.wait(timeout_s) == 0, engine.log.read_text()
    logged = engine.logged()
    assert logged[-1]["event"] == "server_shutdown_complete"
    done = [line for line in logged if line["event"] == "shutdown_stage_done"]
    assert [line["stage"] for line in done] == STAGES
    assert not [line for line in done if "error" in line]
    return {line["stage"]: line for line in done}


def wait_until_stopping(engine: Engine) -> None:
    engine.wait(lambda e: any(line["event"] == "shutdown_asked" for line in engine.logged()))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_engine_signalled_before_mlx_is_imported_shuts_down_through_all_six_stages(start, number):
    engine = start(MLX_PRELOAD_MODELS=CHAT)
    engine.wait(lambda e: isinstance(e, Hello))
    engine.process.send_signal(number)
    stages_of(engine)


def test_engine_that_gets_sigterm_during_a_load_fails_the_waiting_request_as_retryable(start_real):
    for _ in range(3):
        engine = start_real(MLX_PRELOAD_MODELS="[]")
        engine.wait(lambda e: isinstance(e, Ready))
        engine.send(chat("waits", "Hello"))
        engine.wait(lambda e: isinstance(e, Loading))
        engine.process.send_signal(signal.SIGTERM)
        failed = engine.answer("waits", Done)
        assert stages_of(engine)["drain"]["left"] == 0
        if isinstance(failed, Failed):
            break  # else the machine was so busy that the load had ended before the signal came
    assert (failed.code, failed.retryable) == ("engine_unavailable", True)


def test_second_sigterm_during_prefill_fails_the_request_and_stores_the_computed_prompt(start):
    engine = start(MLX_PRELOAD_MODELS=CHAT)
    engine.wait(lambda e: isinstance(e, Ready))
    engine.send(chat("long", LONG, max_tokens=1000))
    engine.wait(lambda e: isinstance(e, Prefill) and e.done >= 256)
    engine.process.send_signal(signal.SIGTERM)
    wait_until_stopping(engine)
    before = len([e for e in engine.events if isinstance(e, Prefill)])
    engine.wait(lambda e: len([p for p in engine.events if isinstance(p, Prefill)]) > before)
    engine.process.send_signal(signal.SIGTERM)
    failed = engine.answer("long", Done)
    assert isinstance(failed, Failed) and failed.retryable
    stages = stages_of(engine)
    assert stages["drain"]["left"] == 1
    kept = list((engine.log.parent / "cache" / "prompts").glob("*.safetensors"))
    assert len(kept) >= 384 // 16


def test_second_signal_to_the_engine_fails_running_answers_without_waiting(start):
    engine = start(MLX_PRELOAD_MODELS=CHAT, VESTAL_MLX__DRAIN_S="600")
    engine.wait(lambda e: isinstance(e, Ready))
    engine.send(*(chat(f"story{n}", f"{n}. Tell me a story.", max_tokens=4000) for n in range(3)))
    engine.wait(lambda e: isinstance(e, Token) and e.index == 2)
    for number in (signal.SIGTERM, signal.SIGINT):
        engine.process.send_signal(number)
        wait_until_stopping(engine)
    assert all(isinstance(engine.answer(f"story{n}", Done), Failed) for n in range(3))
    assert stages_of(engine)["drain"]["left"] == 3


def test_engine_that_gets_sigterm_also_finishes_requests_that_wait_in_its_queue(start):
    engine = start(MLX_PRELOAD_MODELS=CHAT, VESTAL_MLX__MAX_RUNNING="2")
    engine.wait(lambda e: isinstance(e, Ready))
    engine.send(*(chat(f"short{n}", f"{n}. Say hello.", max_tokens=6) for n in range(5)))
    engine.wait(lambda e: isinstance(e, Token))
    engine.process.send_signal(signal.SIGTERM)
    assert all(isinstance(engine.answer(f"short{n}", Done), Done) for n in range(5))
    assert stages_of(engine)["drain"]["left"] == 0


def test_engine_that_gets_sigterm_ends_even_if_the_gateway_does_not_read(start):
    engine = start(MLX_PRELOAD_MODELS=CHAT)
    engine.wait(lambda e: isinstance(e, Ready))
    sampling = Sampling(temperature=1.0, seed=5)
    engine.send(*(chat(f"mute{n}", "Go on.", 200, sampling=sampling, top_logprobs=20) for n in range(4)))
    engine.wait(lambda e: isinstance(e, Token))
    engine.process.send_signal(signal.SIGTERM)  # from here on nothing is read: the socket fills up
    assert stages_of(engine, 60.0)["drain"]["left"] == 0


def test_engine_shutdown_with_a_slow_disk_stops_writing_at_the_time_limit(start, tmp_path):
    engine = start(
        MLX_PRELOAD_MODELS=CHAT, VESTAL_SUPERVISION__STOP_S="10", LD_PRELOAD=str(slow_disk(tmp_path))
    )
    engine.wait(lambda e: isinstance(e, Ready))
    engine.send(chat("kept", LONG[:2000], max_tokens=4))
    engine.answer("kept", Done)
    asked = time.monotonic()
    engine.process.send_signal(signal.SIGTERM)
    persisting = stages_of(engine)["persist_caches"]
    assert 5.5 < persisting["seconds"] < 10.0
    assert time.monotonic() - asked < 30.0
