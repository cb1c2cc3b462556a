"""What log lines of MLX, Metal and Ollama mean, and which of them are recent. Pure."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

_OURS = re.compile(r'"ts": ?(\d{9,}\.?\d*)')
# `time=2025-08-27T13:41:47.882+08:00`, `[GIN] 2025/08/27 - 13:41:47 |`, `2025-08-27 13:41:47,882 - `
_TIME = re.compile(r"\b(\d{4})[-/](\d\d)[-/](\d\d)(?:T| | - )(\d\d:\d\d:\d\d)(?:[.,]\d+)?(Z|[+-]\d\d:?\d\d)?")
_TIME_WITHIN = 80  # characters: a time further on belongs to the text


class Cause(StrEnum):
    CONTENTION = "metal_contention"
    OUT_OF_MEMORY = "metal_out_of_memory"
    TOO_MANY_BUFFERS = "too_many_metal_buffers"
    LIBRARY = "metal_library_does_not_compile"


# The first that matches counts. Ollama's runner and Metal's context also fail where Ollama's shaders do not
# compile on this macOS (ollama 13460, 15594): that is told apart by the lines before it, see `recognize`.
SIGNS: tuple[tuple[Cause, re.Pattern[str]], ...] = (
    (
        Cause.CONTENTION,
        re.compile(r"Reentrancy avoided|compiler is no longer active|MTLCompilerService"),
    ),
    (Cause.TOO_MANY_BUFFERS, re.compile(r"Resource limit \(\d+\) exceeded")),
    (Cause.LIBRARY, re.compile(r"failed to initialize the Metal library|MTLLibraryErrorDomain")),
    (
        Cause.OUT_OF_MEMORY,
        re.compile(
            r"llama runner process has terminated|failed to allocate context|"
            r"CommandBufferCallbackErrorOutOfMemory|\[METAL\].*Insufficient Memory|"
            r"\[metal::malloc\] (?:Unable to allocate|Attempting to allocate)"
        ),
    ),
)
SAME_FAILURE_S = 5.0
WORDS_BEFORE, WORDS_AFTER = 60, 120  # characters


@dataclass(frozen=True)
class Seen:
    """One line that means something. `at` in seconds since 1970; `words` are those around what says it."""

    cause: Cause
    at: float
    words: str


def recognize(lines: Iterable[str], *, written_at: float, since: float) -> list[Seen]:
    """The meaning of a log's end, of what is not older than `since`.

    A line without a time has that of the line before; a log without any, that of its last writing.
    """
    found: list[Seen] = []
    for line, at in timed(lines, written_at):
        if at < since or (sign := _sign(line, at)) is None:
            continue
        if sign.cause is Cause.OUT_OF_MEMORY and _is_sequel(found, at):
            sign = replace(sign, cause=Cause.LIBRARY)
        found.append(sign)
    return found


def _sign(line: str, at: float) -> Seen | None:
    for cause, pattern in SIGNS:
        if match := pattern.search(line):
            begin = max(0, match.start() - WORDS_BEFORE)
            return Seen(cause, at, line[begin : match.end() + WORDS_AFTER].strip())
    return None


def timed(lines: Iterable[str], written_at: float) -> Iterator[tuple[str, float]]:
    """Each line with its time. What stands before the first time is as old as that."""
    told = [(line, time_of(line)) for line in lines]
    last = next((at for _, at in told if at is not None), written_at)
    for line, at in told:
        last = at if at is not None else last
        yield line, last


def time_of(line: str) -> float | None:
    """When a line was written; a time without a zone is this machine's own."""
    head = line[:_TIME_WITHIN]
    if ours := _OURS.search(head):
        return float(ours[1])
    found = _TIME.search(head)
    if found is None:
        return None
    year, month, day, clock, zone = found.groups()
    try:
        return datetime.fromisoformat(f"{year}-{month}-{day}T{clock}{zone or ''}").timestamp()
    except ValueError:
        return None


def _is_sequel(found: list[Seen], at: float) -> bool:
    last = found[-1] if found else None
    return last is not None and last.cause is Cause.LIBRARY and at - last.at <= SAME_FAILURE_S
