"""Distinguish a backend that is not installed from one that is down. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from orchestrator.llm.backend import Backend

NEVER_ABSENT = frozenset({"mlx"})  # Vestal always installs it


@dataclass(frozen=True)
class Presence:
    """Decides which backends are absent (not installed). `seen` names the backends that this process ever
    found healthy, `reported` those whose outage the host agent has accepted to repair.

    A backend counts as absent if it is unreachable although its outage was reported, was never seen healthy,
    and another backend is healthy. If it counted as down, it would be a permanent fault. The MLX server is
    never absent, because Vestal always installs it.
    """

    seen: frozenset[str] = frozenset()
    reported: frozenset[str] = frozenset()

    def after_check(self, backends: Iterable[Backend]) -> Presence:
        """Return this record with the backends that a check found healthy added to `seen`."""
        return replace(self, seen=self.seen | {b.name for b in backends if b.healthy})

    def after_post(self, reported: Iterable[str]) -> Presence:
        """Return this record with the names in the argument `reported` added to the field `reported`. They
        name the backends whose outage was posted to the host agent and accepted by it.
        """
        return replace(self, reported=self.reported | set(reported))

    def judged(self, backends: tuple[Backend, ...]) -> tuple[Backend, ...]:
        """Return the backends, each marked as absent or not."""
        others_serve = any(b.used and b.healthy for b in backends)
        return tuple(replace(b, absent=others_serve and self._missing(b)) for b in backends)

    def _missing(self, backend: Backend) -> bool:
        if backend.healthy or not backend.used or not backend.unreachable:
            return False
        return backend.name in self.reported - self.seen - NEVER_ABSENT
