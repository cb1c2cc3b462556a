"""What a recovery pass can do for MLX and Ollama: nothing more than is true is promised."""

from __future__ import annotations

import pytest

from host_agent.services.retry_advice import Outlook, of, of_mlx, retry_after_s
from host_agent.services.service_status import Row
from vestal.supervision import State

READY = Row(State.READY)


@pytest.mark.parametrize(
    ("state", "by_hand", "told"),
    [
        (State.READY, False, None),
        (State.ABSENT, False, None),
        (State.READY, True, None),  # somebody else has started it
        (State.STOPPED, True, Outlook.MANUAL_STOP),
        (State.STOPPED, False, None),  # the pass starts it
        (State.DEGRADED, False, None),
        (State.BACKOFF, False, Outlook.RECOVERING),
        (State.STARTING, False, Outlook.RECOVERING),
        (State.STARTING, True, Outlook.MANUAL_STOP),
        (State.OPEN, False, Outlook.OPEN),
        (State.FAILED, False, Outlook.OPEN),
    ],
)
def test_outlook_of_a_service(state: State, by_hand: bool, told: Outlook | None):
    assert of(Row(state), by_hand) is told


def test_outlook_of_a_gateway_that_gave_its_engine_up_is_the_engines():
    assert of_mlx(Row(State.DEGRADED), Row(State.OPEN), by_hand=False) is Outlook.OPEN
    assert of_mlx(READY, Row(State.BACKOFF), by_hand=False) is Outlook.RECOVERING
    assert of_mlx(READY, READY, by_hand=True) is None


def test_retry_after_is_that_of_the_one_that_comes_back_first():
    told = {"mlx": Outlook.MANUAL_STOP, "ollama": Outlook.OPEN}
    assert retry_after_s(told, ["mlx"]) == 300
    assert retry_after_s(told, ["mlx", "ollama"]) == 60
    assert retry_after_s({"mlx": Outlook.MANUAL_STOP}, ["mlx", "ollama"]) == 5
    assert retry_after_s(told, []) == 5
