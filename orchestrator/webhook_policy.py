"""When the recovery webhook may be posted again. Pure: time is an argument.

The listener shares one pass between all who call, yet an outage of hours must not mean a post each second:
the pause doubles while the same outage lasts, and never undercuts what the listener asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

FIRST_PAUSE_S = 5.0
MOST_PAUSE_S = 300.0


@dataclass(frozen=True)
class Answer:
    """What the listener said: its status (0: no answer), the pause it asked for, and its words."""

    status: int
    retry_after_s: float = 0.0
    detail: str = ""


@dataclass(frozen=True)
class Pace:
    """How often this outage has been reported, what was down then, and when a post is due again."""

    posts: int = 0
    due_at: float = float("-inf")  # our own pause ends
    asked_until: float = float("-inf")  # the listener wants nothing before this
    reported: frozenset[str] = frozenset()

    def seen(self, down: tuple[str, ...]) -> Pace:
        """The pace once a check is in: what has come back will be news when it goes again."""
        if not down:
            return replace(Pace(), asked_until=self.asked_until)
        return replace(self, reported=self.reported & set(down))

    def may_post(self, now: float, down: tuple[str, ...]) -> bool:
        """Now, if our pause is over or something is newly down, and the listener has not asked to wait."""
        if not down or now < self.asked_until:
            return False
        return now >= self.due_at or not set(down) <= self.reported

    def after(self, answer: Answer, now: float, down: tuple[str, ...], interval_s: float) -> Pace:
        """The pace after a post; the monitor's `interval_s` bounds our own pause, not the listener's wish."""
        posts = self.posts + 1 if set(down) <= self.reported else 1
        most = min(interval_s, MOST_PAUSE_S)
        own = min(FIRST_PAUSE_S * 2 ** min(posts - 1, 10), most)
        if answer.status == 401:  # the token will not become right by itself soon
            own = most
        refused = answer.status in (429, 503)
        return Pace(
            posts=posts,
            due_at=now + max(own, answer.retry_after_s),
            asked_until=now + answer.retry_after_s if refused else self.asked_until,
            reported=frozenset(down),
        )
