"""Decide which failed requests another machine may serve, and which machine serves a request. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

FAULTS_OF_A_MACHINE = frozenset(
    {
        "draining",
        "engine_unavailable",
        "insufficient_memory",
        "model_load_failed",
        "model_not_found",
        "overloaded",
    }
)
"""Codes of errors that are this machine's, and not the request's own: another one may serve it."""

FAR_S = 5.0
"""A request waits so long for the next engine before another machine is asked."""

LONGER_PREFIX_BYTES = 4096
"""A request leaves a machine that is free only for so much more of a conversation that another one has
computed: about 1,000 tokens, whose computation takes longer than the way there. Where all machines are busy,
so much counts as much as one request that waits."""

HERE = ""
"""Stands for this machine where others are named by their URLs."""


@dataclass(frozen=True)
class Machine:
    """The state and load of a machine, from which a machine is chosen. `url` is HERE for this one.

    `serves` is True if a request sent now would be served in the end. `running` and `waiting` count its
    requests, and `slots` is how many run at once. `prefix_bytes` is how much of the request's conversation
    the machine has computed.
    """

    url: str
    serves: bool
    running: int = 0
    waiting: int = 0
    slots: int = 1
    prefix_bytes: int = 0

    @property
    def is_free(self) -> bool:
        """Return whether a request sent now would run at once."""
        return self.serves and self.waiting == 0 and self.running < self.slots


def may_be_mended_elsewhere(code: str) -> bool:
    """Return whether a request that fails with this code may succeed on another machine."""
    return code in FAULTS_OF_A_MACHINE


def is_engine_far(trial_at: float | None, now: float) -> bool:
    """Return whether a circuit breaker delays the next start of an engine by more than FAR_S.

    `trial_at` is the time of that start (monotonic seconds), None if no circuit breaker is open.
    """
    return trial_at is not None and trial_at - now > FAR_S


def order_of_offers(peers: Sequence[Machine]) -> list[str]:
    """Return the URLs of the peers that may serve a request that fails here, the best first.

    Peers that can run it at once come first, those with the longest computed prefix before the others; then
    come the busy peers, those with the shortest queue first.
    """
    serving = [peer for peer in peers if peer.serves]
    return [peer.url for peer in sorted(serving, key=_rank)]


def _queue(machine: Machine) -> float:
    """Return the queue of a busy machine, in requests, less the work that its computed prefix saves. When the
    queues alone decided, fully loaded machines computed three times as many tokens, and their queues grew.
    """
    return machine.waiting - machine.prefix_bytes / LONGER_PREFIX_BYTES


def _rank(machine: Machine) -> tuple[bool, int, int, int]:
    prefix_bytes = machine.prefix_bytes if machine.is_free else 0
    return not machine.is_free, -prefix_bytes, machine.waiting, machine.running


def machine_for(here: Machine, peers: Sequence[Machine]) -> str:
    """Return the URL of the machine that serves a new request best, or HERE.

    Among the machines that can run it at once, that is the one with the longest prefix; else the one with the
    shortest queue, in which a long prefix makes up for requests that wait. This machine wins ties, and where
    it is free, only a much longer prefix elsewhere counts.
    """
    serving = [machine for machine in (here, *peers) if machine.serves]
    free = [machine for machine in serving if machine.is_free]
    if here.is_free:
        best = max(free, key=lambda machine: (machine.prefix_bytes, machine is here))
        return best.url if best.prefix_bytes - here.prefix_bytes >= LONGER_PREFIX_BYTES else HERE
    if not here.serves or not serving:  # it fails here, and is offered then
        return HERE
    if free:
        return max(free, key=lambda machine: (machine.prefix_bytes, -machine.running)).url
    return min(serving, key=lambda machine: (_queue(machine), machine is not here)).url
