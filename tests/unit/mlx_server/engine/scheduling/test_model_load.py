"""One load, advanced slice by slice on a clock that the test moves."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from mlx_server.engine.errors import LoadError
from mlx_server.engine.scheduling.model_load import TURN_S, ModelLoad
from mlx_server.model_store import ModelEntry

ENTRY = ModelEntry("a", Path("a"), "generate", 1, 1, 0.0, "mlx", "llama", "", "", 10, digest="a")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def slices(clock: Clock, seconds: float, *fractions: float) -> Generator[float, None, Any]:
    """Return a loader whose slices each take `seconds`, and reach these fractions."""
    for fraction in fractions:
        clock.now += seconds
        yield fraction
    return "weights"


def test_model_load_reads_slices_of_weights_until_the_time_of_its_turn_is_over(clock):
    load = ModelLoad(ENTRY, slices(clock, TURN_S / 2, 0.2, 0.4, 0.6, 0.8, 1.0), clock.now)
    assert load.advance(clock)
    assert load.fraction == 0.4
    assert load.advance(clock)
    assert load.fraction == 0.8
    assert load.weights is None


def test_model_load_with_a_slice_longer_than_a_turn_reads_only_that_slice(clock):
    load = ModelLoad(ENTRY, slices(clock, 10 * TURN_S, 0.5, 1.0), clock.now)
    assert load.advance(clock)
    assert load.fraction == 0.5


def test_model_load_ends_its_turn_when_its_progress_does_not_grow(clock):
    load = ModelLoad(ENTRY, slices(clock, 0.0, 0.1, 0.1, 0.1), clock.now)
    assert load.advance(clock)
    assert load.fraction == 0.1
    assert not load.advance(clock)


def test_finished_model_load_has_its_weights_and_its_elapsed_time(clock):
    load = ModelLoad(ENTRY, slices(clock, TURN_S / 10, 0.5), clock.now)
    load.advance(clock)
    assert load.weights == "weights"
    assert load.elapsed_s(clock.now + 3.0) == pytest.approx(3.0 + TURN_S / 10)


def test_advancing_the_load_of_a_broken_model_raises_its_load_error(clock):
    def broken() -> Generator[float, None, Any]:
        yield 0.0
        raise LoadError("a", "cut off")

    load = ModelLoad(ENTRY, broken(), clock.now)
    with pytest.raises(LoadError, match="cut off"):
        load.advance(clock) or load.advance(clock)
