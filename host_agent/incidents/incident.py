"""One incident: the services that failed, how they failed, what was done, and the affected requests. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_FAILURES = 6
MAX_TEXTS = 20
MAX_IDS = 10_000


@dataclass(frozen=True)
class Failure:
    """How a service failed, in a sentence: `verb` ("was killed"), `detail` ("SIGKILL, sender unknown")."""

    verb: str
    detail: str = ""


@dataclass
class Part:
    """What happened to one service in an incident. Times are seconds since 1970.

    `failures` counts the failures of each form. `end` is the reason why this part is over, in words; it is
    empty if the service is healthy again. `unseen`: the service ended while no agent ran.
    """

    service: str
    last_fault_at: float
    failures: dict[Failure, int] = field(default_factory=dict)
    restarts: int = 0
    breaker_opens: int = 0
    breaker_s: float = 0.0
    next_trial_at: float | None = None
    gave_up: str = ""
    end: str = ""
    unseen: bool = False
    is_notice: bool = False

    def failed(self, failure: Failure, ts: float) -> None:
        """Count a failure. Forms beyond the first MAX_FAILURES are counted together."""
        if failure not in self.failures and len(self.failures) >= MAX_FAILURES:
            failure = Failure("failed otherwise")
        self.failures[failure] = self.failures.get(failure, 0) + 1
        self.last_fault_at = max(self.last_fault_at, ts)
        self.end = ""

    @property
    def count(self) -> int:
        """Return how often the service failed."""
        return sum(self.failures.values())


@dataclass
class Requests:
    """The requests that an incident affected, by id where the journal has the ids, otherwise by number."""

    parked: set[str] = field(default_factory=set)
    resumed: set[str] = field(default_factory=set)
    dropped: set[str] = field(default_factory=set)
    most_parked: int = 0
    taken_up: int = 0
    dropped_without_id: int = 0

    def park(self, ids: list[str], count: int) -> None:
        """Add requests whose engine has ended."""
        _extend(self.parked, ids)
        self.most_parked = max(self.most_parked, count)

    def resume(self, request_id: str) -> None:
        """Add a request that continues, on this machine or another."""
        if len(self.resumed) < MAX_IDS:
            self.resumed.add(request_id)
        if self.dropped:
            self.dropped.discard(request_id)

    def drop(self, ids: list[str], count: int) -> None:
        """Add requests that failed because no engine could continue them."""
        _extend(self.dropped, ids)
        self.dropped_without_id += max(0, count - len(ids))

    @property
    def lost(self) -> int:
        """Return how many requests failed."""
        return len(self.dropped) + self.dropped_without_id

    @property
    def waited(self) -> int:
        """Return how many requests had to wait. Each counts once, however often its engine died."""
        known = len(self.parked | self.resumed | self.dropped)
        return max(known, self.most_parked, self.taken_up, self.lost)

    @property
    def continued(self) -> int:
        """Return how many requests continued after their engine's end."""
        return min(max(len(self.resumed - self.dropped), self.taken_up), self.waited - self.lost)


@dataclass
class Incident:
    """A fault and everything that belongs to it, until all its services are healthy again.

    `ended_at` is None while the incident is open. `pending` are the services that are not healthy yet.
    `urgency` is the event, about `urgent_service`, that needs a person's attention at once; `ending` is the
    event that ended the incident. The two flags say which notices about it were sent.
    """

    id: int
    began_at: float
    first_seq: int
    last_seq: int
    ended_at: float | None = None
    parts: dict[str, Part] = field(default_factory=dict)
    pending: set[str] = field(default_factory=set)
    requests: Requests = field(default_factory=Requests)
    causes: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    urgency: str = ""
    urgent_service: str = ""
    ending: str = ""
    rebooted: bool = False
    notified: bool = False
    notified_of_end: bool = False

    @property
    def open(self) -> bool:
        """Return whether a service of the incident is not healthy yet."""
        return self.ended_at is None

    @property
    def is_notice(self) -> bool:
        """Return whether the incident is only a notice: no service stopped working."""
        return all(part.is_notice for part in self.parts.values())

    @property
    def last_activity_at(self) -> float:
        """Return when something last failed, or when the incident ended, whichever is later."""
        faults = max((part.last_fault_at for part in self.parts.values()), default=self.began_at)
        return faults if self.ended_at is None else max(faults, self.ended_at)

    def part(self, service: str, ts: float) -> Part:
        """Return the part of a service; create it at the first call."""
        return self.parts.setdefault(service, Part(service, ts))

    def duration_s(self, now: float) -> float:
        """Return how many seconds the incident lasted, or has lasted until `now`; never less than 0."""
        return max(0.0, (now if self.ended_at is None else self.ended_at) - self.began_at)

    def become_urgent(self, event: str, service: str) -> None:
        """Record the first event because of which the incident needs a person at once."""
        if not self.urgency:
            self.urgency, self.urgent_service = event, service

    def add_cause(self, text: str) -> None:
        """Add a sentence about the cause, unless the incident already has it."""
        _add(self.causes, text)

    def add_done(self, text: str) -> None:
        """Add a sentence about a measure that was taken, unless the incident already has it."""
        _add(self.done, text)


def _add(texts: list[str], text: str) -> None:
    if text and text not in texts and len(texts) < MAX_TEXTS:
        texts.append(text)


def _extend(ids: set[str], more: list[str]) -> None:
    if len(ids) < MAX_IDS:
        ids.update(more)
