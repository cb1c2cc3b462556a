"""Distinguish a backend that is not installed from one that is down. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from orchestrator.llm.backend import Backend

NEVER_ABSENT = frozenset({"mlx"})  # Vestal always installs it


@dataclass(frozen=True)
class Presence:
    """Decides which backends are absent (not installed). `seen` names the backends that this process ever
    found healthy. `reported` names the backends whose outage the host agent has agreed to repair. If no host
    agent is configured, it names all of this machine's backends that were ever down.

    A backend counts as absent if it is unreachable, this process never found it healthy, it is in `reported`,
    and another backend is healthy. It then does not count as down, because a fault that no repair can end
    would be shown forever. This machine's MLX server is never absent, because Vestal always installs it.
    """

    seen: frozenset[str] = frozenset()
    reported: frozenset[str] = frozenset()

    def after_check(self, backends: Iterable[Backend]) -> Presence:
        """Return a copy of this record, with those of `backends` that are healthy added to `seen`."""
        return replace(self, seen=self.seen | {b.name for b in backends if b.healthy})

    def after_post(self, reported: Iterable[str]) -> Presence:
        """Return a copy of this record, with the names in the argument `reported` added to the field
        `reported`. They name the backends whose outage the host agent has agreed to repair, or, if no host
        agent is configured, all of this machine's backends that were down.
        """
        return replace(self, reported=self.reported | set(reported))

    def judged(self, backends: tuple[Backend, ...]) -> tuple[Backend, ...]:
        """Return copies of the backends with the field `absent` set. It is True if all of this holds: the
        backend is configured but unreachable; this process never found it healthy; its name is in this
        record's field `reported`, because its outage was reported; and another backend is healthy. Otherwise
        it is False. It is always False for this machine's MLX server.
        """
        others_serve = any(b.used and b.healthy for b in backends)
        return tuple(replace(b, absent=others_serve and self._missing(b)) for b in backends)

    def _missing(self, backend: Backend) -> bool:
        if backend.healthy or not backend.used or not backend.unreachable:
            return False
        return backend.name in self.reported - self.seen - NEVER_ABSENT
