"""The order in which slices of weights are begun and awaited."""

from __future__ import annotations

from dataclasses import dataclass

from mlx_server.engine.models.weights import reading
from mlx_server.memory_forecast.weights import IN_FLIGHT_BYTES, SLICE_BYTES


@dataclass(frozen=True)
class Array:
    """An array of `nbytes`, known by its number."""

    number: int
    nbytes: int


class Disk:
    """Records which bytes are being read at a time."""

    def __init__(self) -> None:
        self.begun: list[Array] = []
        self.completed: list[Array] = []
        self.most_bytes = 0

    def begin(self, arrays: list[Array]) -> None:
        self.begun += arrays
        in_flight = sum(a.nbytes for a in self.begun) - sum(a.nbytes for a in self.completed)
        self.most_bytes = max(self.most_bytes, in_flight)

    def complete(self, arrays: list[Array]) -> None:
        self.completed += arrays


def read(*sizes: int) -> tuple[Disk, list[float]]:
    disk = Disk()
    arrays = [Array(number, size) for number, size in enumerate(sizes)]
    return disk, list(reading.read(arrays, disk.begin, disk.complete))


def test_weights_are_read_in_order_with_several_slices_in_flight_up_to_a_bound_on_bytes():
    disk, fractions = read(*[SLICE_BYTES] * 12)
    assert disk.most_bytes == IN_FLIGHT_BYTES
    assert [a.number for a in disk.completed] == list(range(12))
    assert fractions == sorted(fractions) and fractions[-1] == 1.0 and len(fractions) == 12


def test_small_weight_arrays_are_read_in_joint_slices_including_an_incomplete_last_slice():
    disk, fractions = read(*[SLICE_BYTES // 4] * 6)
    assert len(fractions) == 2 and fractions[-1] == 1.0
    assert len(disk.completed) == 6


def test_weight_array_larger_than_the_limit_of_bytes_in_flight_is_read_alone():
    disk, _ = read(2 * IN_FLIGHT_BYTES, 2 * IN_FLIGHT_BYTES)
    assert disk.most_bytes == 2 * IN_FLIGHT_BYTES


def test_weight_reading_without_any_arrays_finishes_and_reports_no_progress():
    assert read()[1] == []
