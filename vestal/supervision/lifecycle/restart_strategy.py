"""Decide which siblings stop and start together with a child: OTP's strategies. Pure.

Under ONE_FOR_ONE nothing is decided here: each child is restarted alone. Under the other strategies, the
death of a child stops a group of children: all of them (ONE_FOR_ALL), or the dead child and those after it in
start order (REST_FOR_ONE). They are stopped one at a time, from the last to the first. Then they are started
one at a time, from the first to the last, each when the one before it is up. When the supervisor starts, all
children are started in this way. A child that is not wanted (stopped by hand, or finished) is skipped. A
child that is FAILED or OPEN keeps the children after it waiting.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from vestal.supervision.lifecycle.child_state import ChildState
from vestal.supervision.lifecycle.inputs import ReleaseHold, StopAndHold
from vestal.supervision.lifecycle.states import State, Strategy

Instruction = tuple[str, StopAndHold | ReleaseHold]
"""The name of a child, and the input to send to it."""


class GroupPhase(StrEnum):
    """What a group of siblings does at the moment."""

    STEADY = "steady"
    STOPPING = "stopping"
    STARTING = "starting"


@dataclass(frozen=True)
class SiblingGroup:
    """The state of a joint stop and start of one supervisor's children, which `decide` advances.

    `names` are all children in start order, of which `names[first:]` stop and start together. `cause` is why
    they stop.
    """

    strategy: Strategy
    names: tuple[str, ...]
    phase: GroupPhase = GroupPhase.STEADY
    first: int = 0
    cause: str = ""

    @property
    def coupled(self) -> bool:
        """Return whether the death of a child can restart siblings."""
        return self.strategy is not Strategy.ONE_FOR_ONE

    def start_all(self) -> SiblingGroup:
        """Return the group in the phase STARTING, in which `decide` starts the children in order, each when
        the one before it is up. The caller has put each child that is to start on hold, so that none starts
        before its turn.
        """
        return replace(self, phase=GroupPhase.STARTING, first=0)

    def child_died(self, name: str) -> SiblingGroup:
        """Return the group in the phase STOPPING, because the child `name` has died. In this phase, `decide`
        stops the siblings that restart together with that child, and afterwards starts all of these children
        in order.

        If a joint stop or start is under way, its children are included.
        """
        first = 0 if self.strategy is Strategy.ONE_FOR_ALL else self.names.index(name)
        if self.phase is not GroupPhase.STEADY:
            first = min(first, self.first)
        return replace(self, phase=GroupPhase.STOPPING, first=first, cause=f"{name} died")

    def decide(self, children: Mapping[str, ChildState]) -> tuple[SiblingGroup, tuple[Instruction, ...]]:
        """Decide from the states of the children how the joint stop or start goes on. Return the group, in
        its next phase if the present one is over, and the inputs that the caller has to send to children now.

        STOPPING is over when no child of the group has a process or is being launched, and STARTING when
        every child of the group that should run is up. In STEADY, and under ONE_FOR_ONE, there are no inputs.
        The caller calls this method again after each change of a child's state.
        """
        if not self.coupled or self.phase is GroupPhase.STEADY:
            return self, ()
        group = [(name, children[name]) for name in self.names[self.first :]]
        if self.phase is GroupPhase.STOPPING:
            return self._stop_last(group)
        return self._start_next(group)

    def _stop_last(self, group: list[tuple[str, ChildState]]) -> tuple[SiblingGroup, tuple[Instruction, ...]]:
        hold = StopAndHold(self.cause)
        waiting = [name for name, child in group if child.wanted and not child.alive and not child.on_hold]
        instructions: list[Instruction] = [(name, hold) for name in waiting]
        alive = [(name, child) for name, child in group if child.alive]
        if not alive:
            return replace(self, phase=GroupPhase.STARTING), tuple(instructions)
        name, last = alive[-1]
        if last.state is not State.STOPPING:
            instructions.append((name, hold))
        return self, tuple(instructions)

    def _start_next(
        self, group: list[tuple[str, ChildState]]
    ) -> tuple[SiblingGroup, tuple[Instruction, ...]]:
        for name, child in group:
            if child.on_hold:
                return self, ((name, ReleaseHold()),)
            if child.wanted and not child.up:
                return self, ()
        return replace(self, phase=GroupPhase.STEADY), ()
