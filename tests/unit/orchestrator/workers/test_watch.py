"""A worker counts as dead by the observer's clock, and only if the observer watched without a gap."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.workers.watch import (
    BEAT_S,
    DEAD_AFTER_S,
    MAX_GAP_S,
    NO_HEARTBEAT,
    Heartbeat,
    HeartbeatWatch,
)


def looked(*rounds: tuple[float, dict[str, Heartbeat]]) -> HeartbeatWatch:
    watch = HeartbeatWatch()
    for now, seen in rounds:
        watch = watch.after(seen, now)
    return watch


def beats(until: float, beat: Heartbeat) -> list[tuple[float, dict[str, Heartbeat]]]:
    return [(n * BEAT_S, {"w": beat}) for n in range(int(until / BEAT_S) + 1)]


def test_worker_with_an_unchanged_heartbeat_is_declared_dead_after_the_limit():
    assert looked(*beats(DEAD_AFTER_S - BEAT_S, Heartbeat("a", 7))).dead == []
    assert looked(*beats(DEAD_AFTER_S, Heartbeat("a", 7))).dead == ["w"]


def test_observer_that_was_itself_suspended_declares_no_worker_dead_on_waking():
    watch = looked(*beats(DEAD_AFTER_S - BEAT_S, Heartbeat("a", 7)))
    slept = watch.after({"w": Heartbeat("a", 7)}, watch.looked_at + MAX_GAP_S + 3600)
    assert slept.dead == []


def test_restarted_worker_is_declared_dead_only_after_a_whole_time_limit_since_its_restart():
    watch = looked(*beats(DEAD_AFTER_S - BEAT_S, Heartbeat("a", 7)))
    assert watch.after({"w": Heartbeat("b", 7)}, DEAD_AFTER_S).dead == []


def test_worker_with_tasks_but_without_a_heartbeat_is_declared_dead():
    assert looked(*beats(DEAD_AFTER_S, NO_HEARTBEAT)).dead == ["w"]


@given(
    st.lists(
        st.tuples(st.floats(0, 20), st.integers(0, 3), st.booleans()), max_size=60
    )  # the seconds before a look, the beats since the last look, and whether the worker has a row
)
def test_worker_is_declared_dead_if_and_only_if_gapless_observation_shows_no_new_heartbeat_for_the_limit(
    looks: list[tuple[float, int, bool]],
):
    watch, now, count = HeartbeatWatch(), 0.0, 0
    since: float | None = None  # when the present state was first seen in an observation without a gap
    before: Heartbeat | None = None
    for gap, more, there in looks:
        now, count = now + gap, count + more
        beat = Heartbeat("a", count) if there else NO_HEARTBEAT
        if gap > MAX_GAP_S or beat != before or since is None:
            since = now
        before = beat
        watch = watch.after({"w": beat}, now)
        assert (watch.dead == ["w"]) == (now - since >= DEAD_AFTER_S)
