"""The advice to callers of POST /recover: which service no pass will bring up, and when to ask again."""

from __future__ import annotations

import pytest

from host_agent.services.retry_advice import RetryAdvice, for_mlx, for_service, retry_after_s
from host_agent.services.service_status import ServiceStatus
from vestal.supervision import State

READY = ServiceStatus(State.READY)


@pytest.mark.parametrize(
    ("state", "by_hand", "advice"),
    [
        (State.READY, False, None),
        (State.ABSENT, False, None),
        (State.READY, True, None),  # another program has started it
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
def test_retry_advice_tells_a_service_stopped_by_hand_from_one_that_is_restarting_and_from_one_given_up(
    state: State, by_hand: bool, advice: RetryAdvice | None
):
    assert for_service(ServiceStatus(state), by_hand) is advice


def test_retry_advice_for_a_gateway_that_is_up_follows_from_the_state_of_its_engine():
    assert (
        for_mlx(ServiceStatus(State.DEGRADED), ServiceStatus(State.OPEN), stopped_by_hand=False)
        is RetryAdvice.OPEN
    )
    assert for_mlx(READY, ServiceStatus(State.BACKOFF), stopped_by_hand=False) is RetryAdvice.RECOVERING
    assert for_mlx(READY, READY, stopped_by_hand=True) is None


def test_retry_after_is_the_shortest_wait_among_the_services_that_are_down():
    advice = {"mlx": RetryAdvice.MANUAL_STOP, "ollama": RetryAdvice.OPEN}
    assert retry_after_s(advice, ["mlx"]) == 300
    assert retry_after_s(advice, ["mlx", "ollama"]) == 60
    assert retry_after_s({"mlx": RetryAdvice.MANUAL_STOP}, ["mlx", "ollama"]) == 5
    assert retry_after_s(advice, []) == 5
