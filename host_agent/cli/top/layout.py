"""Format the requests in flight and the memory of the MLX server for a terminal or a pipe. Pure.

`requests` is the gateway's response to GET /requests, `health` its response to GET /health.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from host_agent.cli.screen.styled import Line, Segment, printable
from host_agent.cli.screen.units import format_duration
from vestal.config.units import format_size

WIDE_COLUMNS = 76
"""On a terminal with fewer columns, each request has two lines."""
ID_CHARACTERS = 8
MOST_BAR_COLUMNS = 60
PHASE_STYLES = {"running": "green", "loading": "cyan", "parked": "red", "queued": "yellow"}
PHASES = ("running", "loading", "parked", "queued")
MEMORY_PARTS = (
    ("weights", "weights_bytes", "blue"),
    ("KV", "kv_bytes", "cyan"),
    ("prompt cache", "prompt_cache_bytes", "magenta"),
)


@dataclass(frozen=True)
class Column:
    """A column of the table: its title, its maximal width in characters, and whether it holds numbers, which
    are right-aligned.
    """

    title: str
    most: int
    is_number: bool = False


COLUMNS = (
    Column("id", ID_CHARACTERS),
    Column("client", 20),
    Column("model", 28),
    Column("phase", 8),
    Column("prompt", 9, is_number=True),
    Column("tokens", 8, is_number=True),
    Column("tok/s", 6, is_number=True),
    Column("age", 6, is_number=True),
)


def lay_out(
    requests: Mapping[str, Any], health: Mapping[str, Any], width: int, age_s: float = 0.0
) -> list[Line]:
    """Return the lines that show the engine, its memory and the requests in flight on a terminal of `width`
    columns.

    `requests` is the gateway's response to GET /requests, and `health` its response to GET /health. `age_s`
    is how many seconds ago `requests` arrived; it is added to each request's age.
    """
    entries = list(requests.get("requests") or [])
    summary = [*_counts(requests), ("  ", ""), *_engine(health)]
    is_wide = sum(len(text) for text, _ in summary) <= width
    lines: list[Line] = [summary] if is_wide else [_counts(requests), _engine(health)]
    lines += [*memory_lines(health, width), []]
    if not entries:
        return [*lines, [("No request is in flight.", "dim")]]
    lines += _table(entries, width, age_s) if width >= WIDE_COLUMNS else _stacked(entries, width, age_s)
    if omitted := requests.get("omitted"):
        lines.append([(f"… and {omitted} more", "dim")])
    return lines


def plain_lines(requests: Mapping[str, Any], health: Mapping[str, Any]) -> list[Line]:
    """Return the lines for a pipe: a summary, the memory in words, and a table with one line for each request
    and its whole id.
    """
    entries = list(requests.get("requests") or [])
    rows = [[str(entry.get("id") or ""), *_cells(entry, 0.0)[1:]] for entry in entries]
    return [
        [*_counts(requests), ("  ", ""), *_engine(health)],
        [(_memory_sentence(health), "")],
        *_aligned([[column.title for column in COLUMNS], *rows], [""] * (len(rows) + 1)),
    ]


def memory_lines(health: Mapping[str, Any], width: int) -> list[Line]:
    """Return a bar that shows what the engine's memory is used for, and below it the sizes in words, for a
    terminal of `width` columns. `health` is the gateway's response to GET /health. If it has no limit of the
    memory, return a line that says that the memory is not known yet.
    """
    memory = health.get("memory") or {}
    limit = memory.get("limit_bytes") or 0
    if not limit:
        return [[("Memory: not known yet.", "dim")]]
    columns = max(min(MOST_BAR_COLUMNS, width - 2), 1)
    parts = _memory_parts(memory)
    whole = max(limit, sum(size for _, size, _ in parts))
    bar: list[Segment] = [("▕", "dim")]
    used = 0
    for _, size, style in parts:
        cells = min(columns - used, -(-size * columns // whole) if size else 0)  # 1 cell or more
        bar.append(("█" * cells, style))
        used += cells
    bar += [("░" * (columns - used), "dim"), ("▏", "dim")]
    legend: list[Line] = []
    line: list[Segment] = []
    head = f"{format_size(memory.get('in_use_bytes') or 0)} of {format_size(limit)}"
    for text, style in [
        (head, "bold"),
        *((f"{name} {format_size(size)}", style) for name, size, style in parts if size),
    ]:
        if line and sum(len(part) for part, _ in line) + 3 + len(text) > width:
            legend.append(line)
            line = []
        line += [(" · ", "dim"), (text, style)] if line else [(text, style)]
    return [bar, *legend, line]


def _memory_parts(memory: Mapping[str, Any]) -> list[tuple[str, int, str]]:
    """Return the name, the size in bytes and the style of each part of the memory.

    `other` is memory in use that belongs to no named part. `promised` is reserved for running requests but
    not in use yet.
    """
    sizes = {key: int(memory.get(key) or 0) for _, key, _ in MEMORY_PARTS}
    promised = int(memory.get("promised_bytes") or 0) - sizes["kv_bytes"]
    other = int(memory.get("in_use_bytes") or 0) - sum(sizes.values())
    parts = [(name, sizes[key], style) for name, key, style in MEMORY_PARTS]
    return [*parts, ("other", max(other, 0), "green"), ("promised", max(promised, 0), "yellow")]


def _memory_sentence(health: Mapping[str, Any]) -> str:
    memory = health.get("memory") or {}
    if not memory.get("limit_bytes"):
        return "memory: not known yet"
    parts = ", ".join(f"{name} {format_size(size)}" for name, size, _ in _memory_parts(memory) if size)
    in_use, limit = format_size(memory.get("in_use_bytes") or 0), format_size(memory["limit_bytes"])
    return f"memory: {in_use} of {limit}" + (f" ({parts})" if parts else "")


def _counts(requests: Mapping[str, Any]) -> list[Segment]:
    counts = requests.get("counts") or {}
    segments: list[Segment] = []
    for phase in PHASES:
        count = counts.get(phase) or 0
        if count or phase in ("running", "queued"):
            segments += [(f"{count} {phase}", PHASE_STYLES[phase] if count else "dim"), ("  ", "")]
    rate = sum(entry.get("tokens_per_s") or 0.0 for entry in requests.get("requests") or [])
    return [*segments, (f"{rate:.1f} tokens/s", "bold")]


def _engine(health: Mapping[str, Any]) -> list[Segment]:
    engine = health.get("engine") or {}
    state = str(engine.get("state") or "away")
    style = "green" if state in ("ready", "busy") else "red"
    pid = f" (PID {engine['pid']})" if engine.get("pid") else ""
    return [("engine ", "dim"), (f"{state}{pid}", style)]


def _table(entries: Sequence[Mapping[str, Any]], width: int, age_s: float) -> list[Line]:
    titles = [column.title for column in COLUMNS]
    rows = [
        [cell[: column.most] for cell, column in zip(_cells(entry, age_s), COLUMNS, strict=True)]
        for entry in entries
    ]
    styles = ["dim", *(PHASE_STYLES.get(str(entry.get("phase")), "") for entry in entries)]
    return [_cut(line, width) for line in _aligned([titles, *rows], styles)]


def _aligned(rows: Sequence[Sequence[str]], styles: Sequence[str]) -> list[Line]:
    """Return `rows` as lines with aligned columns. Each row has one cell for each of COLUMNS: the titles, or
    the data of one request.

    `styles` has one style for each row: `dim` applies to the whole row, any other style only to the cell in
    the column `phase`.
    """
    widths = [max(len(row[at]) for row in rows) for at in range(len(COLUMNS))]
    lines: list[Line] = []
    for row, style in zip(rows, styles, strict=True):
        line: list[Segment] = []
        for cell, column, cells in zip(row, COLUMNS, widths, strict=True):
            text = cell.rjust(cells) if column.is_number else cell.ljust(cells)
            line += [(text, style if column.title == "phase" or style == "dim" else ""), ("  ", "")]
        lines.append(line)
    return lines


def _stacked(entries: Sequence[Mapping[str, Any]], width: int, age_s: float) -> list[Line]:
    """Return two lines for each request in `entries`: its id, phase, progress and age, and below them its
    model and client.

    `age_s` is how many seconds ago the gateway's list of requests arrived; it is added to each request's age.
    """
    lines: list[Line] = []
    for entry in entries:
        identifier, client, model, phase, _, tokens, rate, age = _cells(entry, age_s)
        head: Line = [
            (identifier[:ID_CHARACTERS], "bold"),
            (f" {phase}", PHASE_STYLES.get(phase, "")),
            (f" {tokens or 0} tok" + (f" {rate}/s" if rate else "") + f" {age}", ""),
        ]
        below = ", ".join(part for part in (model, client) if part)
        lines += [_cut(head, width), _cut([("  " + below, "dim")], width)]
    return lines


def _cells(entry: Mapping[str, Any], age_s: float) -> list[str]:
    rate = entry.get("tokens_per_s")
    return [
        str(entry.get("id") or "")[:ID_CHARACTERS],
        printable(str(entry.get("client") or entry.get("remote") or "")),
        printable(str(entry.get("model") or "")),
        str(entry.get("phase") or ""),
        _count(entry.get("prompt_tokens")),
        _count(entry.get("tokens")),
        "" if rate is None else f"{rate:.1f}",
        format_duration(float(entry.get("age_s") or 0.0) + age_s),
    ]


def _count(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _cut(line: Line, width: int) -> Line:
    cut: list[Segment] = []
    for text, style in line:
        cut.append((text[: max(width, 0)], style))
        width -= len(text)
    return cut
