"""Who stops and starts with whom: OTP's strategies as a pure function over all children (R3.8).

ONE_FOR_ONE never holds anyone. In the others a death makes the group FALL (those alive are ended one by
one, last first), and then RISE (started one by one, each once its predecessor is up), which is also how
they start at all. A child stopped by hand, or done for good, is passed over; one that is failed or open
keeps those after it waiting.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from vestal.supervision.lifecycle.child_state import ChildState
from vestal.supervision.lifecycle.messages import Hold, Release
from vestal.supervision.lifecycle.states import State, Strategy

Order = tuple[str, Hold | Release]


class StrategyPhase(StrEnum):
    STEADY = "steady"
    FALLING = "falling"
    RISING = "rising"


@dataclass(frozen=True)
class Coupling:
    """`names` in start order; the group that falls or rises is `names[first:]`."""

    strategy: Strategy
    names: tuple[str, ...]
    phase: StrategyPhase = StrategyPhase.STEADY
    first: int = 0
    cause: str = ""

    @property
    def coupled(self) -> bool:
        return self.strategy is not Strategy.ONE_FOR_ONE

    def starting(self) -> Coupling:
        """All are held and come up in order."""
        return replace(self, phase=StrategyPhase.RISING, first=0)

    def fallen(self, name: str) -> Coupling:
        """A child died unplanned."""
        first = 0 if self.strategy is Strategy.ONE_FOR_ALL else self.names.index(name)
        if self.phase is not StrategyPhase.STEADY:
            first = min(first, self.first)
        return replace(self, phase=StrategyPhase.FALLING, first=first, cause=f"{name} died")

    def decide(self, models: Mapping[str, ChildState]) -> tuple[Coupling, tuple[Order, ...]]:
        """The next orders. To be asked again after each change of a child, until there are none."""
        if not self.coupled or self.phase is StrategyPhase.STEADY:
            return self, ()
        group = [(name, models[name]) for name in self.names[self.first :]]
        if self.phase is StrategyPhase.FALLING:
            return self._fall(group)
        return self._rise(group)

    def _fall(self, group: list[tuple[str, ChildState]]) -> tuple[Coupling, tuple[Order, ...]]:
        orders = [(name, Hold(self.cause)) for name, m in group if m.wanted and not m.alive and not m.held]
        living = [(name, m) for name, m in group if m.alive]
        if not living:
            return replace(self, phase=StrategyPhase.RISING), tuple(orders)
        name, last = living[-1]
        if last.state is not State.STOPPING:
            orders.append((name, Hold(self.cause)))
        return self, tuple(orders)

    def _rise(self, group: list[tuple[str, ChildState]]) -> tuple[Coupling, tuple[Order, ...]]:
        for name, m in group:
            if m.held:
                return self, ((name, Release()),)
            if m.wanted and not m.up:
                return self, ()
        return replace(self, phase=StrategyPhase.STEADY), ()
