"""What a recovery pass can do for MLX and Ollama: nothing more than is true is promised."""

from __future__ import annotations

import pytest

from host_agent.services.retry_advice import RetryAdvice, of, of_mlx, retry_after_s
from host_agent.services.service_status import ServiceStatus
from vestal.supervision import State

READY = ServiceStatus(State.READY)


@pytest.mark.parametrize(
    ("state", "by_hand", "told"),
    [
        (State.READY, False, None),
        (State.ABSENT, False, None),
        (State.READY, True, None),  # somebody else has started it
        (State.STOPPED, True, RetryAdvice.MANUAL_STOP),
        (State.STOPPED, False, None),  # the pass starts it
        (State.DEGRADED, False, None),
        (State.BACKOFF, False, RetryAdvice.RECOVERING),
        (State.STARTING, False, RetryAdvice.RECOVERING),
        (State.STARTING, True, RetryAdvice.MANUAL_STOP),
        (State.OPEN, False, RetryAdvice.OPEN),
        (State.FAILED, False, RetryAdvice.OPEN),
    ],
)
def test_outlook_of_a_service(state: State, by_hand: bool, told: RetryAdvice | None):
    assert of(ServiceStatus(state), by_hand) is told


def test_outlook_of_a_gateway_that_gave_its_engine_up_is_the_engines():
    assert of_mlx(ServiceStatus(State.DEGRADED), ServiceStatus(State.OPEN), by_hand=False) is RetryAdvice.OPEN
    assert of_mlx(READY, ServiceStatus(State.BACKOFF), by_hand=False) is RetryAdvice.RECOVERING
    assert of_mlx(READY, READY, by_hand=True) is None


def test_retry_after_is_that_of_the_one_that_comes_back_first():
    told = {"mlx": RetryAdvice.MANUAL_STOP, "ollama": RetryAdvice.OPEN}
    assert retry_after_s(told, ["mlx"]) == 300
    assert retry_after_s(told, ["mlx", "ollama"]) == 60
    assert retry_after_s({"mlx": RetryAdvice.MANUAL_STOP}, ["mlx", "ollama"]) == 5
    assert retry_after_s(told, []) == 5
