"""One incident: the services that failed, how they failed, what was done, and the affected requests. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_FAILURES = 6
MAX_TEXTS = 20
MAX_IDS = 10_000


@dataclass(frozen=True)
class Failure:
    """How a service failed, as parts of a sentence: `verb`, such as "was killed", and `detail`, such as
    "SIGKILL, sender unknown".
    """

    verb: str
    detail: str = ""


@dataclass
class Part:
    """What happened to one service in an incident. Times are in seconds since 1970. `last_fault_seq` is the
    number of the journal entry about the service's last fault, or 0 if there is none.

    `failures` maps each different failure to how often it happened. `breaker_opens` is how often the circuit
    breaker opened; an open breaker prevents restarts. `breaker_s` is for how many seconds in all it was open,
    without the time since `breaker_opened_at`. That is when the breaker opened that is open now, and
    `next_trial_at` is when this breaker allows a trial start; both are None if the breaker is not open.
    `gave_up` is the reason why the supervisor does not start the service again, or empty.

    `end` says in words why the service need not become healthy; it is empty if the service is healthy again
    or still failing. `unseen` is True if the service ended while no agent ran. `is_notice` is True if the
    service did not stop working.
    """

    service: str
    last_fault_at: float
    last_fault_seq: int = 0
    failures: dict[Failure, int] = field(default_factory=dict)
    restarts: int = 0
    breaker_opens: int = 0
    breaker_s: float = 0.0
    breaker_opened_at: float | None = None
    next_trial_at: float | None = None
    gave_up: str = ""
    end: str = ""
    unseen: bool = False
    is_notice: bool = False

    def failed(self, failure: Failure, ts: float, seq: int = 0) -> None:
        """Count a failure at the time `ts`, which the journal entry `seq` reports. If there are MAX_FAILURES
        different failures, count further ones together.
        """
        if failure not in self.failures and len(self.failures) >= MAX_FAILURES:
            failure = Failure("failed otherwise")
        self.failures[failure] = self.failures.get(failure, 0) + 1
        self.last_fault_at, self.last_fault_seq = max(self.last_fault_at, ts), seq
        self.end = ""

    def open_breaker(self, ts: float, open_s: float) -> None:
        """Record that the circuit breaker opened at the time `ts`, for `open_s` seconds unless the service is
        started or stopped earlier.
        """
        self.close_breaker(ts)
        self.breaker_opens += 1
        self.breaker_opened_at, self.next_trial_at = ts, ts + open_s

    def close_breaker(self, ts: float) -> None:
        """Record that the circuit breaker, if it is open, is not open any more at the time `ts`. It was open
        until then, or until the time of its trial start, if that is earlier.
        """
        if self.breaker_opened_at is not None and self.next_trial_at is not None:
            self.breaker_s += max(0.0, min(ts, self.next_trial_at) - self.breaker_opened_at)
        self.breaker_opened_at = self.next_trial_at = None

    @property
    def count(self) -> int:
        """Return how often the service failed."""
        return sum(self.failures.values())


@dataclass
class Requests:
    """The requests that an incident affected: those that waited for another engine (`parked`), that continued
    (`resumed`), and that failed (`dropped`). These are sets of ids, which the journal does not have for all
    requests.

    `most_parked` is the greatest number of requests that waited at once, and `dropped_without_id` the number
    of failed requests without an id. `taken_up` is the number of requests that a new gateway continued after
    the previous gateway had ended.
    """

    parked: set[str] = field(default_factory=set)
    resumed: set[str] = field(default_factory=set)
    dropped: set[str] = field(default_factory=set)
    most_parked: int = 0
    taken_up: int = 0
    dropped_without_id: int = 0

    def park(self, ids: list[str], count: int) -> None:
        """Add requests that wait because their engine has ended. `count` is how many wait; `ids` may have
        only some of them.
        """
        _extend(self.parked, ids)
        self.most_parked = max(self.most_parked, count)

    def resume(self, request_id: str) -> None:
        """Record in `resumed` that a request continued, on this machine or another. If the request was
        recorded in `dropped` as failed, remove it from there. A request in `parked` stays there, because it
        did wait.
        """
        if len(self.resumed) < MAX_IDS:
            self.resumed.add(request_id)
        if self.dropped:
            self.dropped.discard(request_id)

    def drop(self, ids: list[str], count: int) -> None:
        """Add requests that failed because no engine could continue them. `count` is how many failed; `ids`
        may have only some of them.
        """
        _extend(self.dropped, ids)
        self.dropped_without_id += max(0, count - len(ids))

    @property
    def lost(self) -> int:
        """Return how many requests failed."""
        return len(self.dropped) + self.dropped_without_id

    @property
    def waited(self) -> int:
        """Return how many requests had to wait. A request counts once, however often its engine died."""
        known = len(self.parked | self.resumed | self.dropped)
        return max(known, self.most_parked, self.taken_up, self.lost)

    @property
    def continued(self) -> int:
        """Return how many requests continued after their engine had ended."""
        return min(max(len(self.resumed - self.dropped), self.taken_up), self.waited - self.lost)


@dataclass
class Incident:
    """A fault and everything that belongs to it, until all services in it are healthy again. Times are in
    seconds since 1970.

    `first_seq` and `last_seq` are the numbers of its first and last journal entries. `parts` maps each
    service's name to what happened to the service; `pending` are the services that are not healthy yet.
    `requests` are the clients' requests that the incident affected, with what became of them.
    `causes` are sentences about why the services failed, and `done` about what Vestal or a person did.
    `rebooted` is True if the machine restarted without a shutdown of Vestal.

    `ended_at` is None while the incident is open; `ending` is the name of the event that ended it. `urgency`
    is the name of the event, about `urgent_service`, that needs a person's attention at once, or empty.
    `notified` and `notified_of_end` say whether a notice about the incident, and one about its end, was sent.
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
        """Return whether the incident has not ended. It ends when no service in it is unhealthy any more."""
        return self.ended_at is None

    @property
    def is_notice(self) -> bool:
        """Return whether the incident is only a notice, in which no service stopped working."""
        return all(part.is_notice for part in self.parts.values())

    @property
    def last_activity_at(self) -> float:
        """Return when a service last failed or the incident ended, whichever is later (seconds since
        1970).
        """
        faults = max((part.last_fault_at for part in self.parts.values()), default=self.began_at)
        return faults if self.ended_at is None else max(faults, self.ended_at)

    def part(self, service: str, ts: float) -> Part:
        """Return the `Part` that says what happened to a service in this incident. If there is none, create
        it with `ts` as the time of the service's last fault.
        """
        return self.parts.setdefault(service, Part(service, ts))

    def duration_s(self, now: float) -> float:
        """Return how many seconds the incident lasted or, if it is open, has lasted at the time `now`.

        The result is never less than 0.
        """
        return max(0.0, (now if self.ended_at is None else self.ended_at) - self.began_at)

    def become_urgent(self, event: str, service: str) -> None:
        """Record that the incident needs a person's attention because of the event with the name `event`,
        which is about `service`. Only the first such event is kept, with its service.
        """
        if not self.urgency:
            self.urgency, self.urgent_service = event, service

    def add_cause(self, text: str) -> None:
        """Add a sentence about the cause, unless the incident already has this sentence."""
        _add(self.causes, text)

    def add_done(self, text: str) -> None:
        """Add a sentence about something that was done, unless the incident already has this sentence."""
        _add(self.done, text)


def _add(texts: list[str], text: str) -> None:
    if text and text not in texts and len(texts) < MAX_TEXTS:
        texts.append(text)


def _extend(ids: set[str], more: list[str]) -> None:
    if len(ids) < MAX_IDS:
        ids.update(more)
