"""The plan of a handover, step by step, with its times."""

from __future__ import annotations

import pytest

from vestal.supervision import HandoverPolicy
from vestal.supervision.handover import plan
from vestal.supervision.handover.plan import (
    Action,
    AskToHandOver,
    Cancelled,
    Emit,
    Handover,
    Input,
    KillPredecessor,
    KillSuccessor,
    MakeSuccessorTheChild,
    PredecessorEnded,
    Stage,
    SuccessorEnded,
    SuccessorReady,
    SuccessorServes,
    TerminatePredecessor,
    TimerFired,
)

POLICY = HandoverPolicy(ready_timeout_s=60, release_timeout_s=30, linger_s=900, stop_timeout_s=10)


def _after(*received: tuple[float, Input]) -> tuple[Handover, list[type]]:
    """Return the handover that began at 0 after these inputs, and the types of the last actions."""
    handover = plan.begin(POLICY, 0.0)
    actions: tuple[Action, ...] = ()
    for now, each in received:
        handover, actions = plan.step(handover, each, now)
    return handover, [type(action) for action in actions if not isinstance(action, Emit)]


READY, SERVES = (1.0, SuccessorReady()), (2.0, SuccessorServes())


def test_handover_records_the_ready_successor_before_it_asks_the_predecessor_to_hand_over():
    assert _after(READY)[1] == [MakeSuccessorTheChild, AskToHandOver]


@pytest.mark.parametrize(
    ("received", "actions"),
    [
        ((60.0, TimerFired()), [KillSuccessor]),
        ((5.0, Cancelled("down")), [KillSuccessor]),
        ((5.0, PredecessorEnded()), [KillSuccessor]),
        ((5.0, SuccessorEnded("exit code 78")), []),
    ],
    ids=["hangs", "cancelled", "predecessor ended", "successor ended"],
)
def test_handover_to_a_successor_that_is_not_ready_is_refused_and_the_predecessor_continues(
    received, actions
):
    handover, last = _after(received)
    assert (handover.stage, last) == (Stage.REFUSED, actions)
    assert handover.why
    ended, _ = plan.step(handover, SuccessorEnded("killed by SIGKILL"), 6.0)
    assert ended.over


def test_handover_kills_a_hung_predecessor_after_the_release_timeout():
    assert _after(READY, (30.9, TimerFired()))[1] == []
    handover, last = _after(READY, (31.0, TimerFired()))
    assert last == [KillPredecessor]
    assert _after(READY, (31.0, TimerFired()), (36.0, TimerFired()))[1] == [KillPredecessor]
    assert plan.step(handover, PredecessorEnded(), 32.0)[0].over


def test_handover_lets_the_predecessor_finish_its_answers_then_terminates_and_kills_it():
    lingering, _ = _after(READY, SERVES)
    assert (lingering.stage, lingering.timer_at, lingering.decided, lingering.over) == (
        Stage.TAKEN_OVER,
        902.0,
        True,
        False,
    )
    assert _after(READY, SERVES, (902.0, TimerFired()))[1] == [TerminatePredecessor]
    assert _after(READY, SERVES, (902.0, TimerFired()), (912.0, TimerFired()))[1] == [KillPredecessor]


def test_stop_during_a_handover_terminates_the_predecessor_at_once():
    for before in ((READY,), (READY, SERVES)):
        assert _after(*before, (3.0, Cancelled("down")))[1] == [TerminatePredecessor]


def test_handover_deadline_is_extended_for_the_first_successor_that_dies_and_not_for_later_ones():
    handover, _ = _after(READY, (5.0, SuccessorEnded("killed")))
    assert (handover.stage, handover.timer_at) == (Stage.TAKING_OVER, 65.0)
    assert plan.step(handover, SuccessorEnded("killed again"), 50.0)[0].timer_at == 65.0


def test_resumed_handover_asks_the_predecessor_to_hand_over_again():
    handover, actions = plan.resume(POLICY, 100.0)
    assert (handover.stage, actions) == (Stage.TAKING_OVER, (AskToHandOver(),))
