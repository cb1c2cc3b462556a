"""Format a log line for people: its time, component, and a sentence. Pure."""

from __future__ import annotations

import textwrap
from collections import deque
from datetime import datetime

from host_agent.cli.logs.log_line import DEBUG, ERROR, WARNING, LogLine
from host_agent.cli.logs.sentences import sentence_of
from host_agent.cli.screen.styled import Line, printable

COMPONENT_COLUMNS = 13
HEAD_COLUMNS = len("21:34:31  ") + COMPONENT_COLUMNS + 2
NARROW_COLUMNS = 80
NARROW_INDENT = 2
STYLES = {ERROR: "red", WARNING: "yellow", DEBUG: "dim"}
SAME_EVENT_S = 5.0


class PipeFormatter:
    """Formats a log line as plain text with its date, for `grep` and files."""

    def lines(self, line: LogLine) -> list[Line]:
        """Return the lines to print: one, or several if the text of the log line has several."""
        when = "" if line.ts is None else datetime.fromtimestamp(line.ts).strftime("%Y-%m-%d %H:%M:%S")
        first, *others = sentence_of(line).split("\n")
        head = f"{when:19}  {line.component:{COMPONENT_COLUMNS}}  "
        return [[(head + first, "")], *([(" " * len(head) + text, "")] for text in others)]


class TerminalFormatter:
    """Formats log lines for a terminal: prints the date when the day changes, and wraps and indents long
    sentences.
    """

    def __init__(self) -> None:
        self._day = ""

    def lines(self, line: LogLine, width: int) -> list[Line]:
        """Return the lines to print for one log line on a terminal of `width` columns."""
        lines: list[Line] = []
        clock = ""
        if line.ts is not None:
            at = datetime.fromtimestamp(line.ts)
            clock, day = at.strftime("%H:%M:%S"), at.strftime("%Y-%m-%d")
            if day != self._day:
                self._day = day
                lines.append([(f"── {day} ──", "dim")])
        style = STYLES.get(line.severity, "")
        indent = HEAD_COLUMNS if width >= NARROW_COLUMNS else NARROW_INDENT
        first, *others = _wrapped(sentence_of(line), width, indent)
        component = f"{printable(line.component):{COMPONENT_COLUMNS}}  "
        head: Line = [(f"{clock:8}  ", "dim"), (component, "bold"), (first, style)]
        return [*lines, head, *([(" " * indent, ""), (text, style)] for text in others)]


def _wrapped(text: str, width: int, indent: int) -> list[str]:
    """Wrap `text` for a terminal of `width` columns, and return the lines without what the caller puts before
    them. The first line leaves room for the HEAD_COLUMNS columns of the time and the component, and each
    other line for an indentation of `indent` columns.
    """
    if HEAD_COLUMNS + len(text) <= width and text.isprintable():
        return [text]
    lines: list[str] = []
    for part in text.split("\n"):
        begins_behind = " " * (HEAD_COLUMNS if not lines else indent)
        wrapped = textwrap.wrap(
            printable(part),
            max(width, HEAD_COLUMNS + 10),
            initial_indent=begins_behind,
            subsequent_indent=" " * indent,
            drop_whitespace=True,
            break_on_hyphens=False,
        )
        lines += [line[HEAD_COLUMNS if not lines and not at else indent :] for at, line in enumerate(wrapped)]
    return lines or [""]


class Repeats:
    """Recognizes events that appear in two logs: an event that the gateway logs is also in the log of its
    agent.
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[float, tuple[str, str, str]]] = deque()

    def is_repeated(self, line: LogLine) -> bool:
        """Return True if `line` is from the agent's log and repeats an event that another log reported at
        most SAME_EVENT_S seconds earlier. Return False for any other line.

        The lines of all logs must be passed to this method, in the order of their times.
        """
        if not line.event or line.ts is None:
            return False
        while self._seen and self._seen[0][0] < line.ts - SAME_EVENT_S:
            self._seen.popleft()
        key = (line.component, line.event, f"{line.cause} {line.fields.get('pid')}")
        if line.service == "agent":
            return any(seen == key for _, seen in self._seen)
        self._seen.append((line.ts, key))
        return False
