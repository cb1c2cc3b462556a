"""Format the response of GET /status as a tree of services. Pure: time and width are arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from host_agent.cli.screen.styled import Line, Segment, wrapped
from host_agent.cli.screen.units import format_duration
from host_agent.sentences import as_sentence
from host_agent.services import AGENT, DOCKER, IN_CONTAINERS, MLX_ENGINE, MLX_SERVER, OLLAMA

HEALTHY_STATES = ("ready", "busy")
CHANGING_STATES = ("starting", "stopping", "backoff", "degraded")
WIDE_COLUMNS = 80
"""On a terminal with fewer columns, sentences are below their service instead of at its right."""
LEAST_SENTENCE_COLUMNS = 24
MOST_NAMED_MODELS = 3

_MARKS = {"green": "●", "yellow": "◐", "red": "✗", "dim": "○"}

Service = Mapping[str, Any]


@dataclass(frozen=True)
class Node:
    """A service in the tree. `branch` and `below` are the line-drawing characters before its name and below
    it.
    """

    name: str
    branch: str
    below: str


def lay_out(status: Mapping[str, Any], width: int, now: float, age_s: float = 0.0) -> list[Line]:
    """Return the lines that show `status`, the response of GET /status, on a terminal of `width` columns.

    `now` is in seconds since 1970. `age_s` is how many seconds ago the response arrived; it is added to the
    uptimes.
    """
    services: dict[str, Service] = status["services"]
    nodes = order(services)
    rows = [_row(node, services[node.name], age_s) for node in nodes]
    lines: list[Line] = [*wrapped([(verdict(status), f"bold {_verdict_style(status)}")], width), []]
    widths = (
        [max((len(row[column][0]) for row in rows), default=0) for column in range(len(rows[0]))]
        if rows
        else []
    )
    is_wide = width >= WIDE_COLUMNS and width - _total(widths) >= LEAST_SENTENCE_COLUMNS
    for node, row in zip(nodes, rows, strict=True):
        sentences = [(text, style) for text, style in words(services[node.name], now, age_s) if text]
        head = _head(node, row, widths)
        if is_wide:
            lines += _with_sentences(node, head, sentences, _total(widths), width)
        else:
            lines += [_cut(head, width), *_below(node, sentences, width)]
    return lines + host_lines(status, width)


def order(services: Mapping[str, Service]) -> list[Node]:
    """Return the services as a tree in depth-first order: each service once, before its children. Siblings
    stay in the order of `services`.

    A service without a parent in `services` is a root. Services whose parents form a circle cannot be reached
    from any root, so the first service of such a circle in `services` is made a root.
    """
    parents = {name: _parent(name, service, services) for name, service in services.items()}
    nodes: list[Node] = []
    shown: set[str] = set()

    def visit(name: str, branch: str, below: str) -> None:
        shown.add(name)
        children = [child for child, parent in parents.items() if parent == name and child not in shown]
        nodes.append(Node(name, branch, below + ("│  " if children else "   ")))
        for child in children:
            last = child == children[-1]
            visit(child, below + ("└─ " if last else "├─ "), below + ("   " if last else "│  "))

    for name, parent in parents.items():
        if parent is None:
            visit(name, "", "")
    for name in services:
        if name not in shown:
            visit(name, "", "")
    return nodes


def verdict(status: Mapping[str, Any]) -> str:
    """Return the agent's sentence about all services. If an older agent sends none, derive it from the
    states.
    """
    if text := status.get("verdict"):
        return as_sentence(str(text))
    unhealthy = [f"{name} is {row['state']}" for name, row in status["services"].items() if not is_well(row)]
    if status["healthy"] or not unhealthy:
        return "All services are healthy." if status["healthy"] else "Not all services are healthy."
    return f"Not all is well: {', '.join(unhealthy)}."


def words(service: Service, now: float, age_s: float = 0.0) -> Iterator[Segment]:
    """Yield the sentences about a service with their styles: its detail, workload, circuit breaker and last
    failure.

    `now` is in seconds since 1970. `age_s` is how many seconds ago the service's state arrived.
    """
    detail = str(service.get("detail") or "").strip()
    if detail:
        yield as_sentence(detail), "" if is_well(service) else state_style(service)
    if work := _work(service):
        yield work, "dim"
    if (breaker := service.get("circuit_breaker_state", "closed")) != "closed":
        yield _breaker_sentence(str(breaker), service.get("next_trial_in_s"), age_s), "red"
    if failure := service.get("last_failure"):
        sentence = str(failure["sentence"]).strip()
        if sentence.rstrip(".").lower() not in detail.lower():
            yield f"Last failure {format_duration(now - failure['ts'])} ago: {as_sentence(sentence)}", "dim"


def state_style(service: Service) -> str:
    """Return the color for a service's state: green, dim (not expected to run), yellow (changing) or red."""
    if service["state"] in HEALTHY_STATES:
        return "green"
    if service["state"] == "absent" or not service.get("expected", True):
        return "dim"
    return "yellow" if service["state"] in CHANGING_STATES else "red"


def is_well(service: Service) -> bool:
    """Return whether a service works, or is not expected to work."""
    return state_style(service) in ("green", "dim")


def format_uptime(seconds: float) -> str:
    """Return a service's uptime, such as `2 h`; an empty string for 0 seconds, because the service then does
    not run.
    """
    return format_duration(seconds) if seconds > 0 else ""


def _parent(name: str, service: Service, services: Mapping[str, Service]) -> str | None:
    """Return the name of the service's parent in the tree, or None for a root.

    The agent names the parent; if an older agent names none, the usual parent is used.
    """
    if "parent" in service:
        parent = service["parent"]
    else:
        in_docker = service.get("runs") == "in a container"
        usual = {MLX_SERVER: AGENT, MLX_ENGINE: MLX_SERVER, OLLAMA: AGENT, DOCKER: AGENT}
        parent = usual.get(name) or (DOCKER if in_docker else AGENT if name in IN_CONTAINERS else None)
    return parent if parent in services and parent != name else None


def _row(node: Node, service: Service, age_s: float) -> list[Segment]:
    uptime_s = service.get("uptime_s") or 0.0
    restarts = service.get("restart_count") or 0
    mark = _MARKS[state_style(service)]
    return [
        (node.branch + node.name, ""),
        (f"{mark} {service['state']}", state_style(service)),
        (str(service.get("process_pid") or ""), "dim"),
        (format_uptime(uptime_s + age_s if uptime_s else 0.0), ""),
        (f"{restarts} restart{'s' * (restarts != 1)}" if restarts else "", "yellow"),
    ]


def _head(node: Node, row: Sequence[Segment], widths: Sequence[int]) -> Line:
    """Return the first line of a service in the tree: the branch and the name of `node`, then all cells of
    `row` but the first. Each column is padded to its width in `widths`; a column of width 0 is left out.

    The first cell of `row` is the branch and the name as one text in one style. Only the length of this text
    is used, because the line shows branch and name in different styles.
    """
    (name, _), *cells = row
    segments: list[Segment] = [(node.branch, "dim"), (node.name, "bold"), (" " * (widths[0] - len(name)), "")]
    for (text, style), cells_width in zip(cells, widths[1:], strict=True):
        if cells_width:
            segments += [("  ", ""), (text, style), (" " * (cells_width - len(text)), "")]
    return segments


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + 2 * sum(1 for width in widths[1:] if width)


def _with_sentences(
    node: Node, head: Line, sentences: Sequence[Segment], left: int, width: int
) -> list[Line]:
    """Return the lines that show one service: the line `head`, with `sentences` about the service at its
    right. The sentences are wrapped so that a whole line has at most `width` columns.

    `left` is the width of `head`. The lines after the first are blank below `head`, except for the vertical
    lines of the tree (`node.below`), which lead to services further down.
    """
    lines = [line for sentence in sentences for line in wrapped([sentence], width - left - 2)]
    if not lines:
        return [head]
    rest = [[(node.below.ljust(left + 2), "dim"), *line] for line in lines[1:]]
    return [[*head, ("  ", ""), *lines[0]], *rest]


def _below(node: Node, sentences: Sequence[Segment], width: int) -> list[Line]:
    room = max(width - len(node.below), 1)
    return [[(node.below, "dim"), *line] for sentence in sentences for line in wrapped([sentence], room)]


def _cut(line: Line, width: int) -> Line:
    """Return the line, truncated to `width` columns."""
    cut: list[Segment] = []
    for text, style in line:
        cut.append((text[: max(width, 0)], style))
        width -= len(text)
    return cut


def _verdict_style(status: Mapping[str, Any]) -> str:
    if status["healthy"]:
        return "green"
    styles = {state_style(service) for service in status["services"].values()}
    return "red" if "red" in styles or "yellow" not in styles else "yellow"


def _work(service: Service) -> str:
    """Return a sentence about an engine's loaded models and its requests; empty for other services."""
    models, requests = service.get("models"), service.get("requests")
    if not models or not isinstance(models, list) or not isinstance(requests, dict):
        return ""
    named = models[:MOST_NAMED_MODELS]
    more = [f"{len(models) - len(named)} more"] if len(models) > len(named) else []
    counts = {state: requests.get(state) or 0 for state in ("running", "queued", "parked")}
    work = ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "no request"
    return f"Loaded: {', '.join([*map(str, named), *more])}; {work}."


def _breaker_sentence(breaker: str, next_trial_in_s: float | None, age_s: float) -> str:
    state = breaker.replace("_", "-")
    if next_trial_in_s is None:
        return f"The circuit breaker is {state}."
    left_s = next_trial_in_s - age_s
    when = f"in {format_duration(left_s)}" if left_s >= 1 else "now"
    return f"The circuit breaker is {state}; the next trial is {when}."


def host_lines(status: Mapping[str, Any], width: int) -> list[Line]:
    """Return lines with the warnings about this machine's memory, disk and journal; none if there are no
    warnings.
    """
    host = status.get("host") or {}
    disk = host.get("disk") or {}
    texts = [
        ("memory", host.get("warning"), "red"),
        ("disk", disk.get("message"), "yellow"),
        ("journal", disk.get("journal"), "yellow"),
    ]
    lines = [
        line for name, text, style in texts if text for line in wrapped([(f"{name}: {text}", style)], width)
    ]
    return [[], *lines] if lines else []
