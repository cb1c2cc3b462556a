"""Read the lines of log files, including rotated files, in the order of their times, and follow new lines."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from host_agent.cli.logs.log_line import LogLine, parse

TAIL_BYTES = 256 * 1024
READ_BYTES = 1 << 20
ROTATED = ".1"


@dataclass(frozen=True, order=True)
class TimedLine:
    """A log line, and the time `at` by which it is sorted: its own time, or the time of the line above it."""

    at: float
    line: LogLine = field(compare=False)


class LogFile:
    """Reads the log file of one service, and remembers up to which byte it was read."""

    def __init__(self, service: str, path: Path) -> None:
        self.service, self.path = service, path
        self._rotated = path.with_name(path.name + ROTATED)
        self._offset: int | None = None  # bytes; None until the file was read

    def exists(self) -> bool:
        return self.path.exists() or self._rotated.exists()

    def tail(self, count: int, *, whole: bool) -> Iterator[TimedLine]:
        """Yield the last lines: at least `count` of them if the log has that many, or all if `whole`.

        Only the end of the file is read unless more is needed. The caller drops surplus lines.
        """
        end = self._end_of_file()
        start = 0 if whole else max(0, end - TAIL_BYTES)
        lines = [] if whole else list(self._lines(self.path, start, end))
        if start and len(lines) > count:  # the first line may be incomplete
            yield from timed(self.service, lines[1:], self._changed_at(self.path))
        else:
            yield from self.since(0.0)

    def since(self, ts: float) -> Iterator[TimedLine]:
        """Yield the lines since `ts` (seconds since 1970), including those in the rotated file."""
        end = self._end_of_file()
        for path, last in ((self._rotated, None), (self.path, end)):
            changed_at = self._changed_at(path)
            if changed_at is None or changed_at < ts:
                continue
            for line in timed(self.service, self._lines(path, 0, last), changed_at):
                if line.at >= ts:
                    yield line

    def new_lines(self) -> Iterator[TimedLine]:
        """Yield the complete lines that were written since the last call, or since `tail` or `since`.

        If the file is shorter than before, it was rotated; the unread lines are then read from the rotated
        file first.
        """
        offset = self._offset or 0
        with contextlib.suppress(OSError):
            size = self.path.stat().st_size
            lines: list[str] = []
            if size < offset:
                lines += self._lines(self._rotated, offset, None)
                offset = 0
            end = self._last_newline(offset, size)
            lines += self._lines(self.path, offset, end)
            self._offset = end
            yield from timed(self.service, lines, self._changed_at(self.path))

    def _end_of_file(self) -> int:
        """Return the size of the file in bytes (0 if missing), and remember where its last complete line
        ends.
        """
        try:
            size = self.path.stat().st_size
            self._offset = self._last_newline(0, size)
        except OSError:
            size = self._offset = 0
        return size

    def _last_newline(self, start: int, end: int) -> int:
        """Return the byte offset after the last newline between two offsets; `start` if there is no
        newline.
        """
        with self.path.open("rb") as file:
            while end > start:
                begin = max(start, end - READ_BYTES)
                file.seek(begin)
                found = file.read(end - begin).rfind(b"\n")
                if found >= 0:
                    return begin + found + 1
                end = begin
        return start

    @staticmethod
    def _lines(path: Path, start: int, end: int | None) -> Iterator[str]:
        """Yield the lines between two byte offsets (to the end if `end` is None); none if the file cannot be
        opened.
        """
        try:
            file = path.open("rb")
        except OSError:
            return
        with file:
            file.seek(start)
            left = (os.fstat(file.fileno()).st_size if end is None else end) - start
            while left > 0 and (raw := file.readline(left)):
                left -= len(raw)
                yield raw.decode(errors="replace").rstrip("\r\n")

    @staticmethod
    def _changed_at(path: Path) -> float | None:
        try:
            return path.stat().st_mtime
        except OSError:
            return None


def timed(service: str, raw_lines: Iterable[str], changed_at: float | None) -> Iterator[TimedLine]:
    """Parse the lines of a file, and yield each with the time by which it is sorted, which never decreases.

    A line without a time gets the time of the line above it or, at the beginning of the file, the time of the
    first line that has one. If no line has a time, all lines get `changed_at`, the time at which the file was
    last changed; if `changed_at` is None, they get 0.
    """
    yield from with_times((parse(service, raw) for raw in raw_lines), changed_at or 0.0)


def with_times(lines: Iterable[LogLine], otherwise: float) -> Iterator[TimedLine]:
    """Yield each line with the time by which it is sorted: its own time or, if it has none or an earlier one,
    the time of the line above it.

    Lines above the first line with a time get that line's time. If no line has a time, all get `otherwise`.
    """
    at: float | None = None
    waiting: list[LogLine] = []
    for line in lines:
        if line.ts is not None:
            at = line.ts if at is None else max(at, line.ts)
            yield from (TimedLine(at, earlier) for earlier in waiting)
            waiting = []
        if at is None:
            waiting.append(line)
        else:
            yield TimedLine(at, line)
    yield from (TimedLine(otherwise, line) for line in waiting)
