"""GET /health says whether a request sent now would be served in the end."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mlx_server.gateway.health import SERVED, health_status, is_outdated, refusal_now
from mlx_server.gateway.requests.dispatcher import Dispatcher
from mlx_server.gateway.requests.table.engine_wait import RequestLimits
from mlx_server.gateway.requests.table.request_table import RequestTable
from mlx_server.gateway.telemetry import Telemetry
from vestal.supervision import ChildStatus, FakeClock, State


@pytest.mark.parametrize(
    ("state", "breaker", "trial_in_s", "said"),
    [
        (State.OPEN, "open", 60.0, "recovering"),
        (State.OPEN, "open", 240.0, "failed"),
        (State.STARTING, "half_open", -1.0, "recovering"),
        (State.BACKOFF, "closed", None, "recovering"),
        (State.FAILED, "closed", None, "failed"),
    ],
)
def test_health_status_without_an_engine_is_failed_only_if_requests_would_fail(
    state: State, breaker: str, trial_in_s: float | None, said: str
):
    clock = FakeClock()
    telemetry = Telemetry(clock.wall, io.StringIO())
    dispatcher = Dispatcher(RequestTable(RequestLimits(1, 4, 120)), clock, telemetry)
    dispatcher.trial_at = lambda: None if trial_in_s is None else clock.now() + trial_in_s
    child = ChildStatus(state, restart_count=5, circuit_breaker_state=breaker)
    engine = SimpleNamespace(ready=False, is_left_behind=False, last_crash={"ts": 0.0}, status=lambda: child)
    assert health_status(cast(Any, engine), dispatcher) == said
    assert (said in SERVED) == (dispatcher.engine_too_late() is None and state is not State.FAILED)


def test_health_status_of_a_gateway_left_behind_by_an_update_is_recovering():
    """The next gateway, of the new program, serves what is sent now."""
    engine = SimpleNamespace(ready=False, is_left_behind=True)
    dispatcher = SimpleNamespace(draining=False)
    assert health_status(cast(Any, engine), cast(Any, dispatcher)) == "recovering"


@pytest.mark.parametrize(
    ("happens", "retry_after"), [("drain", "5"), ("give_up", "60"), ("open_breaker", "240"), ("nothing", "5")]
)
def test_health_that_is_503_says_when_to_ask_again(happens: str, retry_after: str):
    """A load balancer that asked a draining gateway got a 503 without `Retry-After`."""
    clock = FakeClock()
    telemetry = Telemetry(clock.wall, io.StringIO())
    dispatcher = Dispatcher(RequestTable(RequestLimits(1, 4, 120)), clock, telemetry)
    dispatcher.trial_at = lambda: clock.now() + 240 if happens == "open_breaker" else None
    if happens == "drain":
        dispatcher.drain()
    elif happens == "give_up":
        dispatcher.give_up("The engine died too often.")
    refusal = refusal_now("draining" if happens == "drain" else "failed", dispatcher)
    assert refusal is not None
    assert (refusal.status, refusal.headers()["Retry-After"]) == (503, retry_after)
    assert refusal_now("recovering", dispatcher) is None


@pytest.mark.parametrize(
    ("state", "is_idle", "outdated"),
    [
        (State.STARTING, False, True),
        (State.BUSY, True, True),
        (State.BUSY, False, False),
        (State.READY, True, False),
        (State.STOPPING, True, False),
    ],
)
def test_last_probed_state_is_outdated_if_it_says_starting_or_says_busy_although_no_request_runs(
    state: State, is_idle: bool, outdated: bool
):
    """`vestal status` showed `busy` with the words "no request" for up to a second after an answer."""
    assert is_outdated(state, is_idle=is_idle) is outdated
