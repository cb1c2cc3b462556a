"""Evaluate the weights of a model, which reads them from the disk. The weights are divided into slices:
groups of arrays that have at least SLICE_BYTES (16 MiB) together. Several slices are read at the same time.

MLX reads an array of up to 32 MB with one of its four reading threads, and a larger array with all of them. A
slice often consists of a single array that one thread reads, so reading one slice after another would leave
the other threads idle.
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
"""On a CPU, weights are converted by as many threads as there are cores, but at most by this number."""


class Sized(Protocol):
    """What this module needs to know of an array of weights in order to divide the arrays into slices: its
    size in bytes.
    """

    @property
    def nbytes(self) -> int: ...


@dataclass
class _Slice:
    """Arrays that are read together, and their total size in bytes."""

    arrays: list[Any] = field(default_factory=list)
    bytes: int = 0


def read(
    arrays: Sequence[Sized],
    begin: Callable[[list[Any]], None] = mx.async_eval,
    complete: Callable[[list[Any]], None] = mx.eval,
) -> Iterator[float]:
    """Read the weights `arrays` in slices of SLICE_BYTES or more. Yield the fraction done (0 to 1) after each
    slice. `begin` starts to evaluate the arrays of a slice, and `complete` waits until they are evaluated.

    Further slices are begun as long as less than IN_FLIGHT_BYTES are being read. So the disk always has work,
    and so have the threads that convert the weights to float32 on a CPU. Raises MLX's exception if a file
    cannot be read.
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
    """Wait until the oldest slice in `begun` has been read, remove it, and return its size in bytes.
    `complete` waits until the arrays that it is called with are evaluated.
    """
    oldest = begun.popleft()
    complete(oldest.arrays)
    return oldest.bytes


def _slices(arrays: Sequence[Sized]) -> Iterator[_Slice]:
    """Divide the arrays, in their order, into slices of at least SLICE_BYTES (the last slice may have fewer),
    and yield the slices. No array is divided.
    """
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
    """Make MLX schedule the operations of the `with` block, including reads, on a separate stream.

    On a CPU, models compute on the default stream, where their steps would wait for all reads that have
    begun. On a GPU, reads are on the CPU's stream anyway, so nothing changes.
    """
    if computes_on_gpu():
        yield
        return
    with mx.stream(_own_streams()[0]):
        yield


def convert_to_float32(model: Any) -> None:
    """Schedule the conversion of a model's floating-point weights, on several of the CPU's streams in turn.

    A stream is one thread. A single thread needs longer for the conversion than most disks need to read the
    weights, because the kernel must clear each page of the result, which is new to the process.
    """
    streams = itertools.cycle(_own_streams()[1:])

    def converted(array: mx.array) -> mx.array:
        if array.dtype == mx.float32 or not mx.issubdtype(array.dtype, mx.floating):
            return array
        return array.astype(mx.float32, stream=next(streams))

    model.apply(converted)


def _own_streams() -> list[Any]:
    """Return this thread's streams: the first is for reads, the others are for conversions. They are made
    once.
    """
    if not hasattr(_streams, "made"):
        count = 1 + min(MAX_CONVERTERS, os.cpu_count() or 1)
        _streams.made = [mx.new_stream(mx.cpu) for _ in range(count)]
    made: list[Any] = _streams.made
    return made
