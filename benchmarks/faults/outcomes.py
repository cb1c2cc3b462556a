"""Compute the outcome of one try of a fault, from the times of requests and of the journal's events. Pure.

All times are Unix times in seconds by one clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SHORTEST_OUTAGE_S = 2.0
"""A shorter silence between two answers counts as a late answer, not as an outage. In seconds."""
OUTAGE_FACTOR = 3.0
"""A silence after the fault is an outage if it is this many times as long as the longest silence before the
fault.
"""

MLX, AGENT, OLLAMA, ORCHESTRATOR = "mlx", "agent", "ollama", "orchestrator"
"""The services that requests are sent to."""
NOBODY = "nobody"
A_PERSON = "a person"


@dataclass(frozen=True)
class Request:
    """One request of the load, from `began_at` to `ended_at` (Unix times in seconds). `stream` names the
    service that it was sent to.

    `answered` means that the whole answer arrived; else `why` says what happened instead. `is_probe` means
    that the request asks for a short answer: if it is answered, the service certainly worked at `ended_at`.
    `cut_offs` is how often the request's connection broke.
    """

    stream: str
    began_at: float
    ended_at: float
    answered: bool
    cut_offs: int = 0
    is_probe: bool = True
    why: str = ""


@dataclass(frozen=True)
class Entry:
    """One event of the agent's journal. `at` is when it happened, as a Unix time in seconds, and `component`
    names what it concerns, such as `mlx_engine`. `cause` says in words why it happened; "" if the journal
    does not say. `fields` has the event's further data.
    """

    at: float
    component: str
    event: str
    cause: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)


Notices = Callable[[Entry], bool]
"""Returns whether an event of the journal shows that the fault was noticed."""


@dataclass(frozen=True)
class Try:
    """What was observed during one try. All times are Unix times in seconds.

    `stream` is the service whose recovery is measured. The observation began at `from_at`, before the fault
    at `fault_at`, and ended at `until`. `requests` are all requests that the benchmark sent during the try,
    also those to other services, and `entries` the events that the agent's journal got during the try.
    `noticed_at` is set if something other than the journal shows when the fault was noticed. `had_help` means
    that the stack did not serve again until a person's command was run.
    """

    stream: str
    from_at: float
    fault_at: float
    until: float
    requests: Sequence[Request]
    entries: Sequence[Entry]
    noticed_at: float | None = None
    had_help: bool = False


@dataclass(frozen=True)
class Outcome:
    """The figures of one try. `noticed_s` and `served_again_s`, in seconds after the fault, are None if that
    did not happen.

    `lost` counts the requests without a whole answer, `cut_offs` the broken connections whose clients came
    back. `actors` names who healed the fault, in the order in which they acted. `reasons` says why requests
    were lost.
    """

    noticed_s: float | None
    served_again_s: float | None
    lost: int
    cut_offs: int
    actors: tuple[str, ...]
    reasons: tuple[str, ...] = ()

    @property
    def by_person(self) -> bool:
        """Return whether a person had to act."""
        return A_PERSON in self.actors


AGENT_REPLACING = "agent_replacing"
ACTORS = {
    ("mlx_engine", "child_restarting"): "gateway",
    ("mlx_server", "child_restarting"): "agent",
    ("ollama", "child_restarting"): "agent",
    ("orchestrator", "child_restarting"): "agent",
    ("nightly", "child_restarting"): "agent",
    ("mlx_server", "handover_began"): "agent",
    ("agent", AGENT_REPLACING): "agent",
    ("agent", "agent_started"): "watchdog",
    ("recovery", "remedy_applied"): "agent",
    ("orchestrator", "remedy_applied"): "agent",
    ("nightly", "remedy_applied"): "agent",
    ("mlx_server", "connections_dropped"): "gateway",
    ("mlx_server", "request_resumed"): "gateway",
    ("mlx_server", "answers_taken_up"): "gateway",
}
"""Whose action an event of the journal shows, by component and event."""


def outcome(observed: Try, notices: Notices, default_actor: str = NOBODY) -> Outcome:
    """Return the outcome of a try, in which one fault was injected. `notices` returns whether a journal entry
    shows that the fault was noticed.

    The outcome names those who repaired the fault, according to the journal. If the journal shows nobody, it
    names `default_actor`, such as Docker, which restarts containers without writing to the journal.
    """
    after = [entry for entry in observed.entries if observed.fault_at <= entry.at <= observed.until]
    noticed_at = observed.noticed_at
    if noticed_at is None:
        noticed_at = min((entry.at for entry in after if notices(entry)), default=None)
    touched = [request for request in observed.requests if request.ended_at >= observed.fault_at]
    return Outcome(
        noticed_s=None if noticed_at is None else max(0.0, noticed_at - observed.fault_at),
        served_again_s=served_again_s(observed),
        lost=sum(not request.answered for request in touched),
        cut_offs=sum(request.cut_offs for request in touched),
        actors=actors(after, default_actor, observed.had_help),
        reasons=tuple(sorted({request.why for request in touched if not request.answered})),
    )


def served_again_s(observed: Try) -> float | None:
    """Return for how many seconds the service did not serve because of the fault; None if it did not serve at
    the end of the try.

    The result is the longer of two times: the time from the fault to the first answer to a probe sent after
    it, and the longest later outage. Later outages count because some faults interrupt nothing until
    something has to be written or replaced. For a fault that interrupts nothing at all, the result is about
    the time of one answer.
    """
    probes = [each for each in observed.requests if each.stream == observed.stream and each.is_probe]
    answered = [each for each in probes if each.answered]
    first = min((each.ended_at for each in answered if each.began_at >= observed.fault_at), default=None)
    if first is None:
        return None
    ends = sorted(each.ended_at for each in answered if each.ended_at >= observed.from_at)
    outage_s = shortest_outage_s(
        [observed.from_at, *(end for end in ends if end < observed.fault_at), observed.fault_at]
    )
    later = [end for end in ends if end >= first]
    if observed.until - later[-1] > outage_s:
        return None
    outages = (end - begin for begin, end in zip(later, later[1:], strict=False) if end - begin > outage_s)
    return max(first - observed.fault_at, *outages, 0.0)


def shortest_outage_s(before: Sequence[float]) -> float:
    """Return how many seconds without an answer count as an outage: OUTAGE_FACTOR times the longest gap
    between successive times in `before`, but at least SHORTEST_OUTAGE_S. `before` has, in order, the
    begin of the observation, the times of the answers before the fault, and the time of the fault.
    """
    longest = max((end - begin for begin, end in zip(before, before[1:], strict=False)), default=0.0)
    return max(SHORTEST_OUTAGE_S, OUTAGE_FACTOR * longest)


def actors(entries: Sequence[Entry], default_actor: str, had_help: bool) -> tuple[str, ...]:
    """Return the names of those who healed the fault, such as `gateway` or `watchdog`, each once, in the
    order in which the journal's `entries` show their actions. If no entry shows an action, return only
    `default_actor`, which may be NOBODY.

    `had_help` means that the stack did not serve again until a person's command was run. A_PERSON is then
    added as the last name, and a `default_actor` that is NOBODY is left out.
    """
    found = dict.fromkeys(
        actor
        for entry in sorted(entries, key=lambda entry: entry.at)
        if (actor := ACTORS.get((entry.component, entry.event)))
    )
    if any(entry.event == AGENT_REPLACING for entry in entries):
        found.pop("watchdog", None)  # the agent started its successor itself
    names = tuple(found) or (default_actor,)
    if not had_help:
        return names
    return (*(name for name in names if name != NOBODY), A_PERSON)
