"""The recycle policy: an engine is replaced for its memory or its age, when idle, and not in a loop."""

from __future__ import annotations

from mlx_server.gateway.engine_process.recycle_policy import IDLE_WAIT_S, MIN_AGE_S, RecyclePolicy

GIB = 1 << 30
OLD_ENOUGH_S = MIN_AGE_S + 1


def test_engine_replacement_is_never_due_within_the_memory_limit():
    assert RecyclePolicy(None, 0.0, 0.0).due(10 * GIB, 10 * GIB, False, OLD_ENOUGH_S) is None


def test_replacement_of_an_idle_engine_over_its_memory_limit_is_due_and_its_reason_gives_usage_and_limit():
    cause = RecyclePolicy(None, 0.0, 0.0).due(12 * GIB, 10 * GIB, False, OLD_ENOUGH_S)
    assert cause == "recycled: it holds 12.0 GiB, more than 11.5 GiB"


def test_replacement_of_a_busy_engine_is_due_only_after_the_wait_for_idleness():
    policy = RecyclePolicy(8 * GIB, 0.0, 0.0)
    assert policy.due(9 * GIB, 0, True, OLD_ENOUGH_S) is None
    assert policy.due(9 * GIB, 0, True, OLD_ENOUGH_S + IDLE_WAIT_S - 1) is None
    assert policy.due(9 * GIB, 0, True, OLD_ENOUGH_S + IDLE_WAIT_S)


def test_replacement_of_a_busy_engine_waits_the_full_time_again_after_its_memory_shrank():
    policy = RecyclePolicy(8 * GIB, 0.0, 0.0)
    policy.due(9 * GIB, 0, True, OLD_ENOUGH_S)
    assert policy.due(7 * GIB, 0, True, OLD_ENOUGH_S + 50) is None
    assert policy.due(9 * GIB, 0, True, OLD_ENOUGH_S + IDLE_WAIT_S + 1) is None


def test_replacement_of_a_young_engine_is_not_due_for_memory():
    """A replacement that does not help must not be repeated in a loop."""
    assert RecyclePolicy(None, 0.0, 100.0).due(50 * GIB, 10 * GIB, False, 100.0 + MIN_AGE_S - 1) is None


def test_replacement_of_an_engine_at_its_maximum_age_is_due_regardless_of_memory():
    policy = RecyclePolicy(None, 3600.0, 0.0)
    assert policy.due(0, 0, False, 3599.0) is None
    assert policy.due(0, 0, False, 3600.0) == "recycled: it is 1.0 hours old"


def test_engine_replacement_without_reported_memory_figures_is_not_due():
    assert RecyclePolicy(None, 0.0, 0.0).due(0, 0, False, OLD_ENOUGH_S) is None
