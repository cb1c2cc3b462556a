"""`vestal logs`: print the logs of the services, merged by time; with -f, follow new lines."""

from __future__ import annotations

import argparse
import contextlib
import heapq
import json
import re
import shutil
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import FrameType

from host_agent.cli.logs.containers import ContainerLog
from host_agent.cli.logs.formatting import PipeFormatter, Repeats, TerminalFormatter
from host_agent.cli.logs.log_line import LogLine
from host_agent.cli.logs.reading import LogFile, TimedLine
from host_agent.cli.logs.sentences import sentence_of
from host_agent.cli.logs.since import parse_since
from host_agent.cli.screen.styled import Line, print_lines
from host_agent.errors import ComposeFailed, DockerUnavailable, HostAgentError, InvalidOption, UnknownService
from host_agent.service_logs import LOG_FILES, log_path
from host_agent.services import IN_CONTAINERS
from host_agent.services.orchestrator import mode
from vestal.config import Config

POLL_S = 0.3
DEFAULT_LINES = 20
NOTHING_MATCHES = 1
Log = LogFile | ContainerLog
Pattern = re.Pattern[str] | None


def run(options: argparse.Namespace, config: Config) -> int:
    if options.lines is not None and options.lines < 0:
        raise InvalidOption(f"--lines: {options.lines} is no number of lines.")
    since = _since(options.since)
    pattern = _pattern(options.grep)
    logs = _logs(options.service, config)
    printer = _json_printer() if options.json else _printer(len(logs))
    shown = printer(heapq.merge(*(_first_lines(log, options.lines, since, pattern) for log in logs)))
    if options.follow:
        signal.signal(signal.SIGTERM, _exit_on_signal)
        signal.signal(signal.SIGHUP, _exit_on_signal)
        with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C is the usual way to end `vestal logs -f`
            _follow(logs, printer, pattern)
        return 0
    if shown or options.lines == 0:
        return 0
    if not any(isinstance(log, ContainerLog) or log.exists() for log in logs):
        raise HostAgentError(f"There are no logs in {config.home.logs} yet: `vestal up` starts everything.")
    print("vestal: No line matches." if pattern else "vestal: Nothing was logged.", file=sys.stderr)
    return NOTHING_MATCHES if pattern else 0


def _since(text: str | None) -> float | None:
    try:
        return None if text is None else parse_since(text, time.time())
    except ValueError as error:
        raise InvalidOption(f"--since: {error}") from None


def _pattern(text: str | None) -> Pattern:
    try:
        return None if text is None else re.compile(text)
    except re.error as error:
        raise InvalidOption(f"--grep: {text!r} is no regular expression: {error}.") from None


def _logs(service: str | None, config: Config) -> list[Log]:
    """Return the log of `service`, or all logs if `service` is None.

    If the command `docker` is missing, the logs of services in containers are left out with a warning, or
    DockerUnavailable is raised if `service` is such a service. Raises UnknownService if there is no log of
    `service`.
    """
    if service and service not in LOG_FILES:
        raise UnknownService(f"There is no log of {service!r}. The services are: {', '.join(LOG_FILES)}.")
    in_containers = IN_CONTAINERS if mode.has_containers(config) else ()
    logs: list[Log] = []
    for name in [service] if service else LOG_FILES:
        if name not in in_containers:
            logs.append(LogFile(name, log_path(config.home.logs, name)))
            continue
        try:
            logs.append(ContainerLog(name, config))
        except DockerUnavailable as error:
            if service:
                raise
            print(f"vestal: The log of {name} is left out: {error}", file=sys.stderr)
    return logs


def _first_lines(log: Log, count: int | None, since: float | None, pattern: Pattern) -> Iterator[TimedLine]:
    """Return the lines of one log that match `pattern` (None: all lines) and were written since `since`, in
    seconds since 1970 (None: at any time). Of these, return only the last `count` lines (None: all).

    If both `count` and `since` are None, return the last DEFAULT_LINES matching lines.
    """
    if count is None and since is None:
        count = DEFAULT_LINES
    is_whole = pattern is not None  # the last lines that match may be anywhere in the log
    found = log.tail(count or 0, whole=is_whole) if since is None else log.since(since)
    matching = _matching(_readable(found), pattern)
    return matching if count is None else iter(deque(matching, maxlen=count))


def _readable(lines: Iterator[TimedLine]) -> Iterator[TimedLine]:
    """Yield the lines. If reading a container's log fails, print a warning and end, so that the other logs
    are shown.
    """
    try:
        yield from lines
    except ComposeFailed as error:
        print(f"vestal: {error}", file=sys.stderr)


def _matching(lines: Iterable[TimedLine], pattern: Pattern) -> Iterator[TimedLine]:
    """Yield the lines whose raw text or printed text matches `pattern`; all lines if it is None."""
    if pattern is None:
        yield from lines
        return
    for timed in lines:
        shown = f"{timed.line.component}  {sentence_of(timed.line)}"
        if pattern.search(timed.line.raw) or pattern.search(shown):
            yield timed


def _follow(logs: list[Log], printer: Callable[[Iterable[TimedLine]], int], pattern: Pattern) -> None:
    """Pass the new lines of the logs that match `pattern` (all, if it is None) to `printer`, until
    interrupted.
    """
    containers = [log for log in logs if isinstance(log, ContainerLog)]
    try:
        for log in containers:
            log.follow()
        while True:
            printer(_matching(sorted(line for log in logs for line in log.new_lines()), pattern))
            time.sleep(POLL_S)
    finally:
        for log in containers:
            log.stop()


def _exit_on_signal(number: int, frame: FrameType | None) -> None:
    """Raise SystemExit at a signal, so that `_follow` ends the processes that follow the logs of
    containers.
    """
    raise SystemExit(128 + number)


def _json_printer() -> Callable[[Iterable[TimedLine]], int]:
    def show(lines: Iterable[TimedLine]) -> int:
        count = 0
        for timed in lines:
            print(json.dumps(timed.line.as_json()))
            count += 1
        sys.stdout.flush()
        return count

    return show


def _printer(number_of_logs: int) -> Callable[[Iterable[TimedLine]], int]:
    """Return a function that prints log lines for people and returns how many lines it got.

    If several logs are printed, the function skips a line of the agent's log that repeats an event of another
    log.
    """
    lines_of = _formatter()
    repeats = Repeats() if number_of_logs > 1 else None

    def show(lines: Iterable[TimedLine]) -> int:
        count = 0
        for timed in lines:
            count += 1
            if repeats is None or not repeats.is_repeated(timed.line):
                print_lines(lines_of(timed.line))
        sys.stdout.flush()
        return count

    return show


def _formatter() -> Callable[[LogLine], list[Line]]:
    if not sys.stdout.isatty():
        return PipeFormatter().lines
    terminal = TerminalFormatter()
    return lambda line: terminal.lines(line, shutil.get_terminal_size().columns)
