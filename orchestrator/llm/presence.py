"""Tell a backend that is not installed from one that is down. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from orchestrator.llm.backend import Backend

NEVER_ABSENT = frozenset({"mlx"})  # Vestal brings it along


@dataclass(frozen=True)
class Presence:
    """Whom this process ever saw healthy, and whose outage the host agent has heard of.

    A backend that nothing was ever seen of, that the host agent could not bring either, and without which the
    other one serves, is not installed: counted as down, it would be a fault for ever.
    """

    seen: frozenset[str] = frozenset()
    told: frozenset[str] = frozenset()

    def after_check(self, backends: Iterable[Backend]) -> Presence:
        return replace(self, seen=self.seen | {b.name for b in backends if b.healthy})

    def after_post(self, told: Iterable[str]) -> Presence:
        return replace(self, told=self.told | set(told))

    def judged(self, backends: tuple[Backend, ...]) -> tuple[Backend, ...]:
        """The backends, each marked as absent or not."""
        others_serve = any(b.used and b.healthy for b in backends)
        return tuple(replace(b, absent=others_serve and self._missing(b)) for b in backends)

    def _missing(self, backend: Backend) -> bool:
        if backend.healthy or not backend.used or not backend.unreachable:
            return False
        return backend.name in self.told - self.seen - NEVER_ABSENT
