"""When the recovery webhook may be posted again, and what is absent, not down. Pure: time is an argument.

The listener shares one pass between all who call, yet an outage of hours must not mean a post each second:
the pause doubles while the same outage lasts, and never undercuts what the listener asked for. What is not
installed is no outage: it is mentioned once an hour.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

FIRST_PAUSE_S = 5.0
MOST_PAUSE_S = 300.0
ABSENT_PAUSE_S = 3600.0
HOPELESS = frozenset({"open", "manual_stop"})


@dataclass(frozen=True)
class ListenerAnswer:
    """What the listener said: its status (0: no answer), the pause it asked for, its words, and its state.

    `state`: `started` or `joined`; `recovering`: it is at it already; `open`: it has given up for now;
    `manual_stop`: a person stopped it. `backends`: the last three for each of `mlx` and `ollama`.
    """

    status: int
    retry_after_s: float = 0.0
    detail: str = ""
    state: str = ""
    backends: Mapping[str, str] = field(default_factory=dict)

    def hopeless(self, down: Iterable[str]) -> bool:
        """Whether no pass will bring up any of those that are down, short of a person."""
        if self.state in HOPELESS:
            return True
        states = [self.backends.get(name, "") for name in down]
        return bool(states) and HOPELESS.issuperset(states)


@dataclass(frozen=True)
class Pace:
    """How often this outage has been reported, what was down then, and when a post is due again."""

    posts: int = 0
    due_at: float = float("-inf")  # our own pause ends
    asked_until: float = float("-inf")  # the listener wants nothing before this
    reported: frozenset[str] = frozenset()
    absent_due_at: float = float("-inf")  # what is absent is not mentioned before this

    def seen(self, down: tuple[str, ...]) -> Pace:
        """The pace once a check is in: what has come back will be news when it goes again."""
        if not down:
            return Pace(asked_until=self.asked_until, absent_due_at=self.absent_due_at)
        return replace(self, reported=self.reported & set(down))

    def may_post(self, now: float, down: tuple[str, ...], absent: tuple[str, ...] = ()) -> bool:
        """Now, if our pause is over or something is newly down, and the listener has not asked to wait."""
        if now < self.asked_until:
            return False
        if not down:
            return bool(absent) and now >= self.absent_due_at
        return now >= self.due_at or not set(down) <= self.reported

    def after(self, answer: ListenerAnswer, now: float, down: tuple[str, ...], interval_s: float) -> Pace:
        """The pace after a post; the monitor's `interval_s` bounds our own pause, not the listener's wish."""
        posts = self.posts + 1 if set(down) <= self.reported else 1
        most = min(interval_s, MOST_PAUSE_S)
        own = min(FIRST_PAUSE_S * 2 ** min(posts - 1, 10), most)
        if answer.status == 401 or answer.hopeless(down):  # the next post would change nothing soon
            own = most
        refused = answer.status in (429, 503) or answer.state == "recovering"
        return Pace(
            posts=posts,
            due_at=now + max(own, answer.retry_after_s),
            asked_until=now + answer.retry_after_s if refused else self.asked_until,
            reported=frozenset(down),
            absent_due_at=now + ABSENT_PAUSE_S,  # every post says what is absent too
        )
