"""Evaluate the weights of a model, which reads them from the disk. Several slices are read at once.

MLX reads each array by one of its four reading threads, or by all of them if it has more than 32 MB. One
slice after another left most of them idle: a tensor of a common size fills a slice alone.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import mlx.core as mx

from mlx_server.engine.device import computes_on_gpu
from mlx_server.memory_forecast.weights import IN_FLIGHT_BYTES, SLICE_BYTES

MAX_CONVERTERS = 4
"""On a CPU, weights are converted by as many threads as there are cores, but at most by these."""


class Sized(Protocol):
    """An array of weights, of which the slices only need the size in bytes."""

    @property
    def nbytes(self) -> int: ...


@dataclass
class _Slice:
    """Arrays that are read together, and their size."""

    arrays: list[Any] = field(default_factory=list)
    bytes: int = 0


def read(
    arrays: Sequence[Sized],
    begin: Callable[[list[Any]], None] = mx.async_eval,
    complete: Callable[[list[Any]], None] = mx.eval,
) -> Iterator[float]:
    """Read the weights in slices of SLICE_BYTES; yield the fraction done (0 to 1) after each.

    The next slices are begun while less than IN_FLIGHT_BYTES is being read, so that the disk and the
    conversion always have work. Raises what MLX raises if a file cannot be read.
    """
    total = sum(array.nbytes for array in arrays) or 1
    done = in_flight = 0
    begun: deque[_Slice] = deque()
    for piece in _slices(arrays):
        begin(piece.arrays)
        begun.append(piece)
        in_flight += piece.bytes
        while in_flight >= IN_FLIGHT_BYTES:
            done_bytes = _complete(begun, complete)
            in_flight -= done_bytes
            done += done_bytes
            yield done / total
    while begun:
        done += _complete(begun, complete)
        yield done / total


def _complete(begun: deque[_Slice], complete: Callable[[list[Any]], None]) -> int:
    """Wait until the oldest slice has been read. Return its size."""
    oldest = begun.popleft()
    complete(oldest.arrays)
    return oldest.bytes


def _slices(arrays: Sequence[Sized]) -> Iterator[_Slice]:
    """Yield the arrays in slices of at least SLICE_BYTES each, except for the last."""
    piece = _Slice()
    for array in arrays:
        piece.arrays.append(array)
        piece.bytes += array.nbytes
        if piece.bytes >= SLICE_BYTES:
            yield piece
            piece = _Slice()
    if piece.arrays:
        yield piece


_streams = threading.local()  # MLX's streams belong to the thread that made them


@contextlib.contextmanager
def on_own_stream() -> Iterator[None]:
    """Plan the operations of the block, the reads among them, on a stream of their own.

    On a CPU, models compute on the default stream: their steps would wait for all reads that have begun. On
    a GPU they do not, since reads are on the CPU's stream there, and conversions are for the GPU.
    """
    if computes_on_gpu():
        yield
        return
    with mx.stream(_own_streams()[0]):
        yield


def convert_to_float32(model: Any) -> None:
    """Plan the conversion of a model's floating-point weights, on several of the CPU's streams in turn.

    A stream is one thread, which needs longer for the conversion than most disks need for the weights: each
    page of the result is new to the process, and the kernel clears it.
    """
    streams = itertools.cycle(_own_streams()[1:])

    def converted(array: mx.array) -> mx.array:
        if array.dtype == mx.float32 or not mx.issubdtype(array.dtype, mx.floating):
            return array
        return array.astype(mx.float32, stream=next(streams))

    model.apply(converted)


def _own_streams() -> list[Any]:
    """Return this thread's stream for reads, and those for conversions. They are made once."""
    if not hasattr(_streams, "made"):
        count = 1 + min(MAX_CONVERTERS, os.cpu_count() or 1)
        _streams.made = [mx.new_stream(mx.cpu) for _ in range(count)]
    made: list[Any] = _streams.made
    return made
