"""Decide which failed requests may be served by another machine, and which machine serves a request. Pure."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
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
"""Codes of errors that are caused by the machine and not by the request, so that another machine may serve
the request."""

FAR_S = 5.0
"""If the next engine starts later than this, another machine is asked to serve the waiting requests."""

LONGER_PREFIX_BYTES = 4096
"""A request leaves a free machine only if another one has computed at least this much more of the
conversation: about 1,000 tokens, whose computation takes longer than the transfer to the other machine. If
all machines are busy, this much computed prefix counts as much as one waiting request."""

MAX_REFUSALS = 1000

HERE = ""
"""Stands for this machine wherever other machines are named by their URLs."""


@dataclass(frozen=True)
class Machine:
    """The state and load of a machine, from which a machine is chosen. `url` is HERE for this machine.

    `serves` is True if a request that is sent now will be served, perhaps after a wait. `running` and
    `waiting` count the machine's requests, and `slots` is how many it can run at once. `prefix_bytes` is how
    much of the request's conversation the machine has computed.
    """

    url: str
    serves: bool
    running: int = 0
    waiting: int = 0
    slots: int = 1
    prefix_bytes: int = 0

    @property
    def is_free(self) -> bool:
        """Return whether a request that is sent to this machine now would run at once."""
        return self.serves and self.waiting == 0 and self.running < self.slots


class Refusals:
    """Remembers for `after_s` seconds which machines have refused a request for which model, but only the
    latest MAX_REFUSALS refusals. Models are remembered by digests, because their names come from clients and
    may be long. Times are monotonic seconds.
    """

    def __init__(self, after_s: float) -> None:
        self._after_s = after_s
        self._refused_at: OrderedDict[tuple[bytes, str], float] = OrderedDict()

    def note(self, url: str, model: str, now: float) -> None:
        """Record that the machine at `url` has refused a request for this model."""
        self.drop(url, model)
        self._refused_at[_digest(model), url] = now
        while len(self._refused_at) > MAX_REFUSALS:
            self._refused_at.popitem(last=False)

    def drop(self, url: str, model: str) -> None:
        """Forget a refusal, because the machine at `url` has accepted a request for this model."""
        self._refused_at.pop((_digest(model), url), None)

    def urls(self, model: str, now: float) -> set[str]:
        """Return the URLs of the machines that have refused a request for this model lately."""
        wanted, since = _digest(model), now - self._after_s
        return {url for (digest, url), at in self._refused_at.items() if digest == wanted and at >= since}


def _digest(model: str) -> bytes:
    return hashlib.sha256(model.encode("utf-8", "surrogatepass")).digest()[:16]


def may_be_mended_elsewhere(code: str) -> bool:
    """Return whether a request that fails with this code may succeed on another machine."""
    return code in FAULTS_OF_A_MACHINE


def is_engine_start_far_off(trial_at: float | None, now: float) -> bool:
    """Return whether a circuit breaker delays the next start of an engine by more than FAR_S.

    `trial_at` is the time of that start (monotonic seconds), None if no circuit breaker is open.
    """
    return trial_at is not None and trial_at - now > FAR_S


def order_of_offers(peers: Sequence[Machine]) -> list[str]:
    """Return the URLs of the peers that may serve a request that fails here, the best first.

    Peers that can run the request at once come first, those with the longest computed prefix before the
    others. Then come the busy peers, those with the shortest queue first.
    """
    serving = [peer for peer in peers if peer.serves]
    return [peer.url for peer in sorted(serving, key=_rank)]


def _queue(machine: Machine) -> float:
    """Return how many requests wait at a busy machine, less one for every LONGER_PREFIX_BYTES that the
    machine has already computed of the conversation for which a machine is chosen.

    If the number of waiting requests alone decided, conversations would move to machines that have to compute
    them anew. Fully loaded machines would then compute three times as many tokens, and their queues would
    grow.
    """
    return machine.waiting - machine.prefix_bytes / LONGER_PREFIX_BYTES


def _rank(machine: Machine) -> tuple[bool, int, int, int]:
    prefix_bytes = machine.prefix_bytes if machine.is_free else 0
    return not machine.is_free, -prefix_bytes, machine.waiting, machine.running


def machine_for(here: Machine, peers: Sequence[Machine]) -> str:
    """Return the URL of the machine that should serve a new request, or HERE for this machine.

    If this machine could run the request at once, it is chosen unless another free machine has computed at
    least LONGER_PREFIX_BYTES more of the conversation. If this machine is busy, the free machine with the
    longest computed prefix is chosen. If all are busy, the one with the shortest queue is chosen (`_queue`,
    which counts a computed prefix in the machine's favor), and this machine wins a tie.

    If this machine cannot serve requests, the result is HERE, because the peers are asked anyway: the request
    fails here, and the gateway then offers it to them.
    """
    serving = [machine for machine in (here, *peers) if machine.serves]
    free = [machine for machine in serving if machine.is_free]
    if here.is_free:
        best = max(free, key=lambda machine: (machine.prefix_bytes, machine is here))
        return best.url if best.prefix_bytes - here.prefix_bytes >= LONGER_PREFIX_BYTES else HERE
    if not here.serves or not serving:  # the request fails here, and is then offered to other machines
        return HERE
    if free:
        return max(free, key=lambda machine: (machine.prefix_bytes, -machine.running)).url
    return min(serving, key=lambda machine: (_queue(machine), machine is not here)).url
