"""The engine's memory ledger: how much memory exists, which models hold it, and how a need for more can be
met. Pure.

Two bounds hold at the same time. The engine as a whole stays below its limit. And the memory that the engine
has reserved but not yet taken, plus the need, stays below the memory that is available on the machine. Memory
is measured again for each decision, and no refusal is remembered, so a refusal never outlasts its cause.

Memory for a need is found in this order: drop idle caches, unload idle models (least recently used first),
wait for running requests, refuse.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

GIB = 1024**3
MIB = 1024**2


@dataclass(frozen=True)
class MemoryReading:
    """The memory of the machine and of the engine's process, in bytes.

    `active_bytes` and `cached_bytes` are MLX's counters of memory in use and of free memory that it holds for
    reuse. These counters miss some of the memory that Metal holds, and the process's footprint misses some of
    the memory that they count, so `own_bytes` is the larger of the footprint and the sum of the counters.
    """

    total_bytes: int
    available_bytes: int
    footprint_bytes: int
    active_bytes: int
    cached_bytes: int
    prompt_cache_bytes: int = 0  # from earlier requests; plain memory that MLX does not count
    ready_bytes: int = 0  # of the prompt cache, too, but in MLX's memory, so part of active_bytes
    wired_bytes: int | None = None

    @property
    def own_bytes(self) -> int:
        """Return how many bytes the engine holds."""
        return max(self.footprint_bytes, self.active_bytes + self.cached_bytes + self.prompt_cache_bytes)


@dataclass(frozen=True)
class Holding:
    """The memory of a model that is loaded or being loaded.

    `reserved_bytes` are reserved for its requests. `busy` is True if it has requests, and `awaited` if the
    next request to start needs it; in both cases it must not be unloaded. `last_used_s` is when it was last
    used, in seconds on the scheduler's clock. `shared_bytes` of its `bytes` are shared with the other
    holdings that have the same `shared`, an id of weights ("" if nothing is shared); the rest belongs to this
    model alone.
    """

    name: str
    bytes: int
    reserved_bytes: int
    busy: bool
    last_used_s: float
    awaited: bool = False  # a request is about to start on it
    shared: str = ""
    shared_bytes: int = 0

    @property
    def own_bytes(self) -> int:
        """Return how many bytes belong to this model alone."""
        return self.bytes - (self.shared_bytes if self.shared else 0)


@dataclass(frozen=True)
class Need:
    """The memory that a model to be loaded, or a request, needs.

    `staying` is the loaded model that the request runs on; None for a model to be loaded. `shared` is the id
    of loaded weights that a model to be loaded will share; "" if there are none. The model `staying` and
    the weights `shared` may not be unloaded to meet the need.

    `bytes` must be reserved in addition to what is held and reserved at this time. `alone_bytes` would have
    to be reserved if nothing else needed memory. For a request, that is its own memory, without that of the
    model `staying`. For a model to be loaded, it is all that the load takes, including `shared` weights.
    """

    bytes: int
    alone_bytes: int
    staying: str | None = None
    shared: str = ""


@dataclass(frozen=True)
class Fits:
    """The decision that a need fits, after dropping idle caches (if `drop_caches`) and unloading the models
    in `evict`.

    The idle caches are the free memory that MLX holds for reuse, all of which is released, and the prompt
    cache. `lacking_bytes` is how many bytes must still come from the prompt cache. No more of it needs to be
    dropped.
    """

    drop_caches: bool = False
    evict: tuple[str, ...] = ()
    lacking_bytes: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Wait:
    """The decision that a need does not fit at this time, and must wait.

    `free_bytes` is how much memory can be reserved at this time. `busy` names the models whose requests hold
    the lacking memory. It is empty if other programs hold it.
    """

    free_bytes: int
    busy: tuple[str, ...] = ()


@dataclass(frozen=True)
class Never:
    """The decision that a need (see `Need`) can never be met on this machine within the engine's limit.

    `needs_bytes` is the least that the engine would take to meet the need: the memory of its process, of the
    model `Need.staying`, and `Need.alone_bytes`. `free_bytes` is how much can be reserved at this time.
    """

    needs_bytes: int
    free_bytes: int


Decision = Fits | Wait | Never


def kept_free_bytes(total_bytes: int) -> int:
    """Return how many bytes are always left to other programs on a machine with `total_bytes`."""
    return min(512 * MIB, total_bytes * 3 // 100)


@dataclass(frozen=True)
class Ledger:
    """The figures from which `decide` decides whether a need for memory can be met.

    `limit_bytes` is how much the engine may take, and `overhead_bytes` what its process takes without any
    model. `reading` is the measured memory of the machine and of the process. `holdings` are the models in
    memory, with what they hold and what is reserved for their requests.
    """

    limit_bytes: int
    overhead_bytes: int
    reading: MemoryReading
    holdings: Sequence[Holding] = ()

    @property
    def reserved_total_bytes(self) -> int:
        """Return the bytes that the engine takes at most if no further request starts."""
        return self.overhead_bytes + held_bytes(self.holdings) + sum(h.reserved_bytes for h in self.holdings)

    @property
    def free_bytes(self) -> int:
        """Return how many bytes can be reserved at this time; negative if the engine already takes
        too much.
        """
        own, reserved = self.reading.own_bytes, self.reserved_total_bytes
        within_limit = self.limit_bytes - max(own, reserved)
        to_come = max(reserved - own, 0)
        kept = kept_free_bytes(self.reading.total_bytes)
        return min(within_limit, self.reading.available_bytes - to_come - kept)

    @property
    def idle_caches_bytes(self) -> int:
        """Return how many more bytes could be reserved if both idle caches were dropped: the prompt cache
        with all its tiers, and the free memory that MLX holds for reuse.

        The result is at most what the engine holds beyond `reserved_total_bytes`. Caches may also occupy
        memory that is reserved for models and requests but not used yet. Dropping that part of the caches
        frees nothing for further reservations, so it does not count.
        """
        caches = self.reading.cached_bytes + self.reading.prompt_cache_bytes + self.reading.ready_bytes
        return min(caches, max(self.reading.own_bytes - self.reserved_total_bytes, 0))


def held_bytes(holdings: Iterable[Holding]) -> int:
    """Return the bytes of all models in `holdings`, counting shared weights once."""
    shared: dict[str, int] = {}
    own = 0
    for holding in holdings:
        own += holding.own_bytes
        if holding.shared:
            shared[holding.shared] = max(shared.get(holding.shared, 0), holding.shared_bytes)
    return own + sum(shared.values())


def freed_bytes(holdings: Sequence[Holding], evicted: Iterable[str], staying: str = "") -> int:
    """Return how many bytes are freed by unloading the models `evicted`, if the shared weights with the id
    `staying` ("": none) remain in memory.
    """
    names = set(evicted)
    left = [h for h in holdings if h.name not in names]
    freed = held_bytes(holdings) - held_bytes(left)
    if staying and not any(h.shared == staying for h in left):
        freed -= max((h.shared_bytes for h in holdings if h.shared == staying), default=0)
    return freed


def decide(ledger: Ledger, need: Need, leaving: Collection[str] = ()) -> Decision:
    """Decide whether the need fits (and what must be freed for it), must wait, or can never be met.

    The models `leaving` are in memory, and will be unloaded before the need is met, whatever the decision
    says. Their memory counts as free, and they are not in `Fits.evict`.
    """
    staying = sum(h.bytes for h in ledger.holdings if h.name == need.staying)
    at_least = ledger.overhead_bytes + staying + need.alone_bytes
    if at_least > ledger.limit_bytes:
        return Never(at_least, ledger.free_bytes)
    evict = list(leaving)
    freed = freed_bytes(ledger.holdings, evict, need.shared)
    lacking = need.bytes - ledger.free_bytes - freed
    if lacking <= 0:
        return Fits()
    missing = need.bytes - ledger.free_bytes - ledger.idle_caches_bytes
    kept = {h.shared for h in ledger.holdings if h.shared and not _can_go(h, need)} | {need.shared}
    for holding in sorted(ledger.holdings, key=lambda h: h.last_used_s):
        if missing <= freed:
            break
        frees_something = holding.own_bytes > 0 or holding.shared not in kept
        if holding.name not in evict and _can_go(holding, need) and (frees_something or not holding.shared):
            evict.append(holding.name)
            freed = freed_bytes(ledger.holdings, evict, need.shared)
    missing -= freed
    busy = tuple(h.name for h in ledger.holdings if h.busy)
    if missing <= 0 or (not busy and _machine_has_room(ledger, need, evict)):
        lacking_cache = max(lacking - ledger.reading.cached_bytes, 0)
        return Fits(True, tuple(name for name in evict if name not in leaving), lacking_cache)
    return Wait(ledger.free_bytes, busy)


def _can_go(holding: Holding, need: Need) -> bool:
    return not (holding.busy or holding.awaited) and holding.name != need.staying


def _machine_has_room(ledger: Ledger, need: Need, evict: Sequence[str]) -> bool:
    """Return True if the need fits once the models `evict` are unloaded, judged by the machine's available
    memory and by the reservations.

    The size of the engine's process is ignored, because the process returns freed memory to the system late.
    """
    leaving = freed_bytes(ledger.holdings, evict, need.shared)
    kept = kept_free_bytes(ledger.reading.total_bytes)
    available = ledger.reading.available_bytes + ledger.idle_caches_bytes + leaving - kept
    return need.bytes <= min(available, ledger.limit_bytes - ledger.reserved_total_bytes + leaving)
