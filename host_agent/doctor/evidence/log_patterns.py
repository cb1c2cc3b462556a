"""Find the log lines of MLX, Metal and Ollama that name a cause of trouble, and the times of these lines.
Pure.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

_VESTAL_TIME = re.compile(r'"ts": ?(\d{9,}\.?\d*)')
# `time=2025-08-27T13:41:47.882+08:00`, `[GIN] 2025/08/27 - 13:41:47 |`, `2025-08-27 13:41:47,882 - `
_TIME = re.compile(r"\b(\d{4})[-/](\d\d)[-/](\d\d)(?:T| | - )(\d\d:\d\d:\d\d)(?:[.,]\d+)?(Z|[+-]\d\d:?\d\d)?")
_TIME_WITHIN_CHARS = 80  # a time further into the line is part of the message


class LoggedCause(StrEnum):
    """The cause of trouble that a log line names."""

    CONTENTION = "metal_contention"
    OUT_OF_MEMORY = "metal_out_of_memory"
    TOO_MANY_BUFFERS = "too_many_metal_buffers"
    LIBRARY = "metal_library_does_not_compile"


# The first pattern that matches counts. OUT_OF_MEMORY's pattern also matches if Ollama's shaders do not
# compile on this macOS (ollama issues 13460, 15594); `find_matches` corrects that by the line before.
PATTERNS: tuple[tuple[LoggedCause, re.Pattern[str]], ...] = (
    (
        LoggedCause.CONTENTION,
        re.compile(r"Reentrancy avoided|compiler is no longer active|MTLCompilerService"),
    ),
    (LoggedCause.TOO_MANY_BUFFERS, re.compile(r"Resource limit \(\d+\) exceeded")),
    (LoggedCause.LIBRARY, re.compile(r"failed to initialize the Metal library|MTLLibraryErrorDomain")),
    (
        LoggedCause.OUT_OF_MEMORY,
        re.compile(
            r"(?:llama runner|llama-server) process has terminated|failed to allocate context|"
            r"llama-server reported out-of-memory|"
            r"CommandBufferCallbackErrorOutOfMemory|\[METAL\].*Insufficient Memory|"
            r"\[metal::malloc\] (?:Unable to allocate|Attempting to allocate)"
        ),
    ),
)
SAME_FAILURE_S = 5.0
CHARS_BEFORE, CHARS_AFTER = 60, 120


@dataclass(frozen=True)
class LogMatch:
    """A line that names a cause of trouble: its time in seconds since 1970, and an excerpt around the
    match.
    """

    cause: LoggedCause
    at: float
    excerpt: str


def find_matches(lines: Iterable[str], *, written_at: float, since: float) -> list[LogMatch]:
    """Return the lines that name a cause of trouble and are not older than `since`. `lines` are the last
    lines of a log.

    `written_at` is when the log was last written. It counts as the time of every line if no line has a
    timestamp. All times are in seconds since 1970.
    """
    found: list[LogMatch] = []
    for line, at in with_times(lines, written_at):
        if at < since or (match := _match(line, at)) is None:
            continue
        if match.cause is LoggedCause.OUT_OF_MEMORY and _follows_library_failure(found, at):
            match = replace(match, cause=LoggedCause.LIBRARY)
        found.append(match)
    return found


def with_times(lines: Iterable[str], written_at: float) -> Iterator[tuple[str, float]]:
    """Yield each line with its time: its own timestamp, or the time of the line before it.

    Lines before the first timestamp get the time of that timestamp. In a log without timestamps, all lines
    get `written_at`.
    """
    timed = [(line, time_of(line)) for line in lines]
    last = next((at for _, at in timed if at is not None), written_at)
    for line, at in timed:
        last = at if at is not None else last
        yield line, last


def time_of(line: str) -> float | None:
    """Return a line's timestamp in seconds since 1970, or None if it has none.

    A timestamp without a time zone is in this machine's zone.
    """
    head = line[:_TIME_WITHIN_CHARS]
    if vestal_time := _VESTAL_TIME.search(head):
        return float(vestal_time[1])
    found = _TIME.search(head)
    if found is None:
        return None
    year, month, day, clock, zone = found.groups()
    try:
        return datetime.fromisoformat(f"{year}-{month}-{day}T{clock}{zone or ''}").timestamp()
    except ValueError:
        return None


def _match(line: str, at: float) -> LogMatch | None:
    for cause, pattern in PATTERNS:
        if match := pattern.search(line):
            begin = max(0, match.start() - CHARS_BEFORE)
            return LogMatch(cause, at, line[begin : match.end() + CHARS_AFTER].strip())
    return None


def _follows_library_failure(found: list[LogMatch], at: float) -> bool:
    last = found[-1] if found else None
    return last is not None and last.cause is LoggedCause.LIBRARY and at - last.at <= SAME_FAILURE_S
