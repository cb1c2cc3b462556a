"""The engine's memory ledger: what there is, who has it, and what to do about a need. Pure.

Two bounds hold at once. The engine as a whole stays under its limit; and what it has promised but not taken
yet, with the need, stays under what the machine has available now. Figures are read anew for each decision
and nothing remembers a refusal, so the guard cannot outlive its reason.

Order of relief: idle caches, idle models (least recently used first), wait for what runs, refuse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

GIB = 1024**3
MIB = 1024**2


@dataclass(frozen=True)
class MemoryReading:
    """The machine and the engine's process as they are now, in bytes.

    `active_bytes` and `cached_bytes` are MLX's: in use, and kept for reuse. Its counters miss some of what
    Metal holds, and the process's footprint misses some of what they count: the larger of the two is taken.
    """

    total_bytes: int
    available_bytes: int
    footprint_bytes: int
    active_bytes: int
    cached_bytes: int
    prompt_cache_bytes: int = 0  # of requests long gone; plain memory, unknown to MLX
    wired_bytes: int | None = None

    @property
    def own_bytes(self) -> int:
        return max(self.footprint_bytes, self.active_bytes + self.cached_bytes + self.prompt_cache_bytes)


@dataclass(frozen=True)
class Holding:
    """A model in memory, or on its way there. `reserved_bytes` is promised to its requests."""

    name: str
    bytes: int
    reserved_bytes: int
    busy: bool
    last_used_s: float
    awaited: bool = False  # a request is about to start on it


@dataclass(frozen=True)
class Need:
    """`bytes` more are asked for; `alone_bytes` would be, were nothing else there but `staying`, if given."""

    bytes: int
    alone_bytes: int
    staying: str | None = None


@dataclass(frozen=True)
class Fits:
    """Go ahead, having dropped idle caches if told to, and unloaded the models of `evict`.

    `lacking_bytes` is what must come of it: a cache that can be dropped in part need not go whole.
    """

    drop_caches: bool = False
    evict: tuple[str, ...] = ()
    lacking_bytes: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Wait:
    """Not now. `busy` are the models whose requests hold what is lacking; without any, others do."""

    free_bytes: int
    busy: tuple[str, ...] = ()


@dataclass(frozen=True)
class Never:
    """Not in this machine, within this limit."""

    needs_bytes: int
    free_bytes: int


Decision = Fits | Wait | Never


def default_limit_bytes(total_bytes: int, gpu_bytes: int | None = None) -> int:
    """All but 2 GiB or 15 % of the machine's memory, and no more than its GPU can hold.

    On a machine so small that this would leave less than half, half.
    """
    limit = max(total_bytes - max(2 * GIB, total_bytes * 15 // 100), total_bytes // 2)
    return min(limit, gpu_bytes) if gpu_bytes else limit


def kept_free_bytes(total_bytes: int) -> int:
    """What the rest of the machine is left with, whatever the limit."""
    return min(512 * MIB, total_bytes * 3 // 100)


@dataclass(frozen=True)
class Ledger:
    """`overhead_bytes` is the engine's process without any model."""

    limit_bytes: int
    overhead_bytes: int
    reading: MemoryReading
    holdings: Sequence[Holding] = ()

    @property
    def promised_bytes(self) -> int:
        """What the engine will take at most, if nothing more is asked of it."""
        return self.overhead_bytes + sum(h.bytes + h.reserved_bytes for h in self.holdings)

    @property
    def free_bytes(self) -> int:
        """What can be promised now. Negative where too much is taken."""
        own, promised = self.reading.own_bytes, self.promised_bytes
        within_limit = self.limit_bytes - max(own, promised)
        to_come = max(promised - own, 0)
        kept = kept_free_bytes(self.reading.total_bytes)
        return min(within_limit, self.reading.available_bytes - to_come - kept)

    @property
    def idle_caches_bytes(self) -> int:
        """What dropping idle caches frees. Up to what is promised, it would only be taken again."""
        caches = self.reading.cached_bytes + self.reading.prompt_cache_bytes
        return min(caches, max(self.reading.own_bytes - self.promised_bytes, 0))


def decide(ledger: Ledger, need: Need) -> Decision:
    """How the need is met, if it can be."""
    staying = sum(h.bytes for h in ledger.holdings if h.name == need.staying)
    at_least = ledger.overhead_bytes + staying + need.alone_bytes
    if at_least > ledger.limit_bytes:
        return Never(at_least, ledger.free_bytes)
    missing = need.bytes - ledger.free_bytes
    if missing <= 0:
        return Fits()
    missing -= ledger.idle_caches_bytes
    evict: list[str] = []
    for holding in sorted(ledger.holdings, key=lambda h: h.last_used_s):
        if missing <= 0:
            break
        if not (holding.busy or holding.awaited) and holding.name != need.staying:
            evict.append(holding.name)
            missing -= holding.bytes
    busy = tuple(h.name for h in ledger.holdings if h.busy)
    if missing <= 0 or (not busy and _machine_has_room(ledger, need, evict)):
        return Fits(True, tuple(evict), need.bytes - ledger.free_bytes)
    return Wait(ledger.free_bytes, busy)


def _machine_has_room(ledger: Ledger, need: Need, evict: Sequence[str]) -> bool:
    """With nothing else to run, what the process has not given back must not keep it from ever running."""
    leaving = sum(h.bytes for h in ledger.holdings if h.name in evict)
    kept = kept_free_bytes(ledger.reading.total_bytes)
    available = ledger.reading.available_bytes + ledger.idle_caches_bytes + leaving - kept
    return need.bytes <= min(available, ledger.limit_bytes - ledger.promised_bytes + leaving)
