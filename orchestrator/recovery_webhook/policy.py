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
    """What was posted to the host agent about an outage, and when the next post may follow.

    `posts` counts the posts about this outage, again from 1 when another backend goes down. `reported` has
    the backends that the last post named as down, without those that have recovered since. Two pauses follow
    a post: this process's own pause ends at `due_at`, and the pause that the host agent's listener asked for
    ends at `asked_until`. The next post waits for the end of both, but if another backend goes down, it does
    not wait for `due_at`. Backends that are not installed may be mentioned again at `absent_due_at`.
    """

    posts: int = 0
    due_at: float = float("-inf")  # when this process's own pause ends
    asked_until: float = float("-inf")  # when the pause that the listener asked for ends
    reported: frozenset[str] = frozenset()
    absent_due_at: float = float("-inf")  # when absent backends may be mentioned again

    def seen(self, down: tuple[str, ...]) -> ReportPace:
        """Return this record of posts and pauses, updated after a health check that found the backends in
        `down` to be down.

        All other backends are removed from `reported`, so that the next outage of a backend that has
        recovered does not wait for `due_at`. If `down` is empty, `posts` and `due_at` are reset too.
        """
        if not down:
            return ReportPace(asked_until=self.asked_until, absent_due_at=self.absent_due_at)
        return replace(self, reported=self.reported & set(down))

    def may_post(self, now: float, down: tuple[str, ...], absent: tuple[str, ...] = ()) -> bool:
        """Return True if a post is due at the time `now`. `down` names the backends that are down, and
        `absent` those that seem not to be installed.

        No post is due during the pause that the receiver of the posts, the host agent's listener, asked for.
        Otherwise, if backends are down, a post is due if this process's own pause between two posts is over,
        or at once if the outage of one of them is not reported yet. If no backend is down, a post is due only
        if some are absent and there was no post for an hour.
        """
        if now < self.asked_until:
            return False
        if not down:
            return bool(absent) and now >= self.absent_due_at
        return now >= self.due_at or not set(down) <= self.reported

    def after(
        self, answer: ListenerAnswer, now: float, down: tuple[str, ...], interval_s: float
    ) -> ReportPace:
        """Return this record of posts and pauses, updated after a post at the time `now`. The post named the
        backends in `down` as down, and the host agent's listener answered it with `answer`.

        The pause until the next post about the same outage is 5 s after the first post, and doubles with each
        further one. It is at most five minutes, and at most `interval_s`, the interval of the health monitor.
        It has this maximum at once if the listener refused the token or only a person can start the backends.
        A longer pause that the listener asked for takes its place.
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
