"""An engine is replaced for what it holds or how old it is, when it is idle, and not in a loop."""

from __future__ import annotations

from mlx_server.gateway.engine_process.recycling import IDLE_PATIENCE_S, NOT_BEFORE_S, Recycling

GIB = 1 << 30
LATE_S = NOT_BEFORE_S + 1


def test_engine_within_its_limit_is_left_alone():
    assert Recycling(None, 0.0, 0.0).due(10 * GIB, 10 * GIB, False, LATE_S) is None


def test_idle_engine_past_its_limit_is_due_with_the_figures():
    cause = Recycling(None, 0.0, 0.0).due(12 * GIB, 10 * GIB, False, LATE_S)
    assert cause == "recycled: it holds 12.0 GiB, more than 11.5 GiB"


def test_busy_engine_is_due_when_it_does_not_become_idle():
    recycling = Recycling(8 * GIB, 0.0, 0.0)
    assert recycling.due(9 * GIB, 0, True, LATE_S) is None
    assert recycling.due(9 * GIB, 0, True, LATE_S + IDLE_PATIENCE_S - 1) is None
    assert recycling.due(9 * GIB, 0, True, LATE_S + IDLE_PATIENCE_S)


def test_engine_that_shrinks_again_starts_anew():
    recycling = Recycling(8 * GIB, 0.0, 0.0)
    recycling.due(9 * GIB, 0, True, LATE_S)
    assert recycling.due(7 * GIB, 0, True, LATE_S + 50) is None
    assert recycling.due(9 * GIB, 0, True, LATE_S + IDLE_PATIENCE_S + 1) is None


def test_young_engine_is_left_alone_so_that_a_replacement_which_does_not_help_is_no_loop():
    assert Recycling(None, 0.0, 100.0).due(50 * GIB, 10 * GIB, False, 100.0 + NOT_BEFORE_S - 1) is None


def test_old_engine_is_due_whatever_it_holds():
    recycling = Recycling(None, 3600.0, 0.0)
    assert recycling.due(0, 0, False, 3599.0) is None
    assert recycling.due(0, 0, False, 3600.0) == "recycled: it is 1.0 hours old"


def test_engine_that_tells_no_figures_is_left_alone():
    assert Recycling(None, 0.0, 0.0).due(0, 0, False, LATE_S) is None
