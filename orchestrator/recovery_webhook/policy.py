"""Decide when an outage may be posted again to the recovery webhook, which the host agent's listener serves.
Pure: time is an argument, in monotonic seconds.

An outage of hours must not cause a post each second, although the listener lets all callers share one
recovery pass. So the pause between posts doubles while the same outage lasts, and is never shorter than the
listener asked for. A backend that is not installed is not an outage: it is mentioned once an hour.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

FIRST_PAUSE_S = 5.0
MAX_PAUSE_S = 300.0
ABSENT_PAUSE_S = 3600.0
NOT_RECOVERABLE = frozenset({"open", "manual_stop"})
"""States of a backend in which no recovery pass will start it. See
docs/decisions/0013-recover-names-services-it-cannot-start.md.
"""


@dataclass(frozen=True)
class ListenerAnswer:
    """The answer of the host agent's listener to a post that reports an outage.

    `status` is the HTTP status, 0 without an answer. `retry_after_s` is the pause that the listener asked
    for, `detail` a sentence for people. `backends` maps each backend (`mlx` or `ollama`) that the recovery
    pass will not start now to the reason: `recovering` (the supervisor is already starting it), `open` (given
    up for now) or `manual_stop` (a person stopped it).
    """

    status: int
    retry_after_s: float = 0.0
    detail: str = ""
    backends: Mapping[str, str] = field(default_factory=dict)

    def needs_a_person(self, down: Iterable[str]) -> bool:
        """Return True if no recovery pass will start any of the backends in `down`, so that a person
        has to.
        """
        states = [self.backends.get(name, "") for name in down]
        return bool(states) and NOT_RECOVERABLE.issuperset(states)


@dataclass(frozen=True)
class ReportPace:
    """The pace of the reports of one outage to the host agent: how often it was reported (`posts`), for which
    backends (`reported`), and when the next post is due.

    `due_at` is when this process's own pause ends, `asked_until` when the pause that the listener asked for
    ends, and `absent_due_at` when backends that are not installed may be mentioned again.
    """

    posts: int = 0
    due_at: float = float("-inf")  # when this process's own pause ends
    asked_until: float = float("-inf")  # when the pause that the listener asked for ends
    reported: frozenset[str] = frozenset()
    absent_due_at: float = float("-inf")  # when absent backends may be mentioned again

    def seen(self, down: tuple[str, ...]) -> ReportPace:
        """Return the pace after a health check that found the backends in `down` to be down.

        A backend that has recovered is reported at once when it fails again.
        """
        if not down:
            return ReportPace(asked_until=self.asked_until, absent_due_at=self.absent_due_at)
        return replace(self, reported=self.reported & set(down))

    def may_post(self, now: float, down: tuple[str, ...], absent: tuple[str, ...] = ()) -> bool:
        """Return True if a post is due.

        A post is due when this process's own pause is over, or at once if the outage of a backend is not
        reported yet, but never within the pause that the listener asked for. If only `absent` backends could
        be reported, a post is due at most once an hour.
        """
        if now < self.asked_until:
            return False
        if not down:
            return bool(absent) and now >= self.absent_due_at
        return now >= self.due_at or not set(down) <= self.reported

    def after(
        self, answer: ListenerAnswer, now: float, down: tuple[str, ...], interval_s: float
    ) -> ReportPace:
        """Return the pace after a post that the listener answered with `answer`. `interval_s`, the interval
        of the health monitor, is an upper limit for this process's own pause, but not for the pause that the
        listener asked for.
        """
        posts = self.posts + 1 if set(down) <= self.reported else 1
        max_s = min(interval_s, MAX_PAUSE_S)
        own_s = min(FIRST_PAUSE_S * 2 ** min(posts - 1, 10), max_s)
        if answer.status == 401 or answer.needs_a_person(down):  # the next post would change nothing soon
            own_s = max_s
        refused = answer.status in (429, 503)
        return ReportPace(
            posts=posts,
            due_at=now + max(own_s, answer.retry_after_s),
            asked_until=now + answer.retry_after_s if refused else self.asked_until,
            reported=frozenset(down),
            absent_due_at=now + ABSENT_PAUSE_S,  # every post also mentions absent backends
        )
