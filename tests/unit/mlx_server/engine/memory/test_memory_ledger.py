"""The ledger's decision on a need for memory, for any state of the machine."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from mlx_server.engine.memory.ledger import (
    GIB,
    MIB,
    Fits,
    Holding,
    Ledger,
    MemoryReading,
    Need,
    Never,
    Wait,
    decide,
    kept_free_bytes,
)

MAC = MemoryReading(24 * GIB, 18 * GIB, 100 * MIB, 0, 0)
AMOUNT = st.integers(0, 12).map(lambda n: n * 512 * MIB)
HOLDINGS = st.lists(
    st.builds(
        Holding,
        name=st.sampled_from("abcdef"),
        bytes=AMOUNT,
        reserved_bytes=AMOUNT,
        busy=st.booleans(),
        last_used_s=st.floats(0, 100),
        awaited=st.booleans(),
    ).map(lambda h: h if h.busy else replace(h, reserved_bytes=0)),
    unique_by=lambda h: h.name,
    max_size=5,
)
READINGS = st.builds(
    MemoryReading,
    total_bytes=st.just(24 * GIB),
    available_bytes=st.integers(0, 24 * GIB),
    footprint_bytes=AMOUNT,
    active_bytes=AMOUNT,
    cached_bytes=AMOUNT,
    prompt_cache_bytes=AMOUNT,
    ready_bytes=AMOUNT,
).map(lambda reading: replace(reading, active_bytes=reading.active_bytes + reading.ready_bytes))
LEDGERS = st.builds(
    Ledger,
    limit_bytes=st.integers(GIB, 24 * GIB),
    overhead_bytes=st.just(128 * MIB),
    reading=READINGS,
    holdings=HOLDINGS,
)
SHARED_BYTES = {"one": 3 * GIB, "two": 5 * GIB}
SHARING = st.builds(
    lambda holding, shared: replace(
        holding, bytes=holding.bytes + SHARED_BYTES[shared], shared=shared, shared_bytes=SHARED_BYTES[shared]
    ),
    HOLDINGS.filter(bool).map(lambda found: found[0]),
    st.sampled_from(sorted(SHARED_BYTES)),
)
SHARING_LEDGERS = st.builds(
    lambda ledger, sharing: replace(
        ledger, holdings=[h for h in ledger.holdings if h.name not in {s.name for s in sharing}] + sharing
    ),
    LEDGERS,
    st.lists(SHARING, unique_by=lambda h: h.name, min_size=1, max_size=4),
)
NEEDS = st.builds(lambda n, more: Need(n, n + more), AMOUNT, st.just(0))


def mac(*holdings: Holding, reading: MemoryReading = MAC) -> Ledger:
    return Ledger(20 * GIB, 128 * MIB, reading, holdings)


def idle(name: str, gib: int, last_used_s: float) -> Holding:
    return Holding(name, gib * GIB, 0, busy=False, last_used_s=last_used_s)


def test_memory_need_that_fits_evicts_nothing():
    assert decide(mac(), Need(10 * GIB, 10 * GIB)) == Fits()


def test_memory_need_over_the_limit_is_refused_for_good():
    answer = decide(mac(), Need(41 * GIB, 41 * GIB))
    assert isinstance(answer, Never)
    assert answer.needs_bytes == 41 * GIB + 128 * MIB


def test_memory_need_drops_idle_caches_before_idle_models():
    cached = replace(MAC, footprint_bytes=12 * GIB, cached_bytes=8 * GIB, active_bytes=4 * GIB)
    assert decide(mac(idle("a", 4, 1), reading=cached), Need(12 * GIB, 12 * GIB)) == Fits(drop_caches=True)


def test_memory_need_keeps_the_prompt_cache_if_the_free_memory_of_mlx_is_enough():
    """The prompt cache was once dropped for memory that MLX only held for reuse."""
    held = replace(MAC, active_bytes=5 * GIB, cached_bytes=9 * GIB, prompt_cache_bytes=2 * GIB)
    ledger = mac(idle("a", 5, 1), reading=held)
    fits = decide(ledger, Need(7 * GIB, 7 * GIB, staying="a"))
    assert fits == Fits(drop_caches=True)
    assert isinstance(fits, Fits) and fits.lacking_bytes == 0
    more = decide(ledger, Need(14 * GIB, 14 * GIB, staying="a"))
    assert isinstance(more, Fits) and more.lacking_bytes == 1 * GIB


def test_memory_of_ready_caches_is_counted_once_in_what_the_engine_holds():
    held = replace(MAC, active_bytes=5 * GIB, cached_bytes=1 * GIB, prompt_cache_bytes=2 * GIB)
    ready = replace(held, ready_bytes=3 * GIB)  # three of the five
    assert ready.own_bytes == held.own_bytes == 8 * GIB
    assert replace(ready, footprint_bytes=9 * GIB).own_bytes == 9 * GIB
    assert mac(idle("a", 2, 1), reading=ready).free_bytes == mac(idle("a", 2, 1), reading=held).free_bytes


def test_memory_need_drops_ready_caches_before_idle_models():
    ready = replace(MAC, active_bytes=11 * GIB, prompt_cache_bytes=1 * GIB, ready_bytes=7 * GIB)
    ledger = mac(idle("a", 4, 1), reading=ready)
    assert ledger.idle_caches_bytes == 12 * GIB - (4 * GIB + 128 * MIB)
    fits = decide(ledger, Need(14 * GIB, 14 * GIB))
    assert fits == Fits(drop_caches=True)
    assert isinstance(fits, Fits) and fits.lacking_bytes == 6 * GIB
    without = replace(ready, ready_bytes=0)
    assert decide(replace(ledger, reading=without), Need(14 * GIB, 14 * GIB)) == Fits(True, ("a",))


def test_memory_need_evicts_least_recently_used_models_only_as_needed():
    full = replace(MAC, available_bytes=6 * GIB, footprint_bytes=15 * GIB, active_bytes=15 * GIB)
    ledger = mac(idle("new", 5, 3), idle("old", 5, 1), idle("older", 5, 2), reading=full)
    assert decide(ledger, Need(8 * GIB, 8 * GIB)) == Fits(drop_caches=True, evict=("old",))
    assert decide(ledger, Need(14 * GIB, 14 * GIB)) == Fits(drop_caches=True, evict=("old", "older"))


def test_memory_decision_when_busy_models_hold_the_needed_memory_is_to_wait_and_lists_those_models():
    busy = Holding("busy", 10 * GIB, 4 * GIB, busy=True, last_used_s=1)
    answer = decide(mac(busy, reading=replace(MAC, footprint_bytes=10 * GIB)), Need(8 * GIB, 8 * GIB))
    assert answer == Wait(free_bytes=20 * GIB - 14 * GIB - 128 * MIB, busy=("busy",))


def test_memory_need_of_a_request_does_not_evict_its_own_model():
    ledger = Ledger(8 * GIB, 128 * MIB, replace(MAC, footprint_bytes=4 * GIB), [idle("own", 4, 1)])
    assert decide(ledger, Need(2 * GIB, 2 * GIB, staying="own")) == Fits()
    assert isinstance(decide(ledger, Need(5 * GIB, 5 * GIB, staying="own")), Never)


def test_memory_decision_to_wait_for_memory_that_other_programs_hold_lists_no_models():
    short = mac(reading=replace(MAC, available_bytes=2 * GIB, footprint_bytes=128 * MIB))
    assert decide(short, Need(8 * GIB, 8 * GIB)) == Wait(2 * GIB - kept_free_bytes(24 * GIB), ())


def test_memory_need_counts_unused_reservations_as_unavailable_memory():
    promised = Holding("busy", 10 * GIB, 0, busy=True, last_used_s=1)
    assert isinstance(decide(mac(promised), Need(9 * GIB, 9 * GIB)), Wait)  # 18 available, 10 to come


def test_memory_need_is_accepted_if_the_process_exceeds_its_limit_with_nothing_loaded():
    """A process that has grown past its limit with nothing loaded continues, since the machine has room."""
    leaked = replace(MAC, footprint_bytes=19 * GIB)
    assert isinstance(decide(mac(reading=leaked), Need(4 * GIB, 4 * GIB)), Fits)


def sharing(name: str, own_gib: int, last_used_s: float, *, busy: bool = False) -> Holding:
    """Return a model that shares 6 GiB of weights, and has `own_gib` of its own."""
    bytes_ = (6 + own_gib) * GIB
    return Holding(name, bytes_, 0, busy, last_used_s, shared="weights", shared_bytes=6 * GIB)


def test_memory_ledger_counts_shared_weights_once():
    models = [sharing("base", 0, 1), sharing("pirate", 1, 2), sharing("poet", 1, 3), idle("other", 2, 4)]
    assert mac(*models).reserved_total_bytes == 128 * MIB + (6 + 1 + 1 + 2) * GIB


def test_memory_need_evicts_a_base_model_only_with_all_its_adapters():
    full = replace(MAC, available_bytes=4 * GIB, footprint_bytes=14 * GIB, active_bytes=14 * GIB)
    base, pirate, other = sharing("base", 0, 1), sharing("pirate", 1, 2), idle("other", 7, 3)
    assert decide(mac(base, pirate, other, reading=full), Need(8 * GIB, 8 * GIB)) == Fits(
        True, ("base", "pirate")
    )
    busy = sharing("pirate", 1, 2, busy=True)
    assert decide(mac(base, busy, other, reading=full), Need(8 * GIB, 8 * GIB)) == Fits(True, ("other",))


def test_memory_need_does_not_count_weights_shared_with_the_new_model_as_freed():
    full = replace(MAC, available_bytes=4 * GIB, footprint_bytes=14 * GIB, active_bytes=14 * GIB)
    base, other = sharing("base", 0, 1), idle("other", 8, 3)
    need = Need(5 * GIB, 11 * GIB, shared="weights")
    assert decide(mac(base, other, reading=full), need) == Fits(True, ("other",))


@given(LEDGERS, NEEDS)
def test_memory_need_is_refused_for_good_only_if_it_exceeds_the_limit_with_nothing_else_loaded(
    ledger: Ledger, need: Need
):
    never = isinstance(decide(ledger, need), Never)
    assert never == (ledger.overhead_bytes + need.alone_bytes > ledger.limit_bytes)


@given(LEDGERS, NEEDS)
def test_memory_need_evicts_only_idle_models_and_the_least_recently_used_first(ledger: Ledger, need: Need):
    answer = decide(ledger, need)
    if not isinstance(answer, Fits):
        return
    may_leave = sorted(
        (h for h in ledger.holdings if not h.busy and not h.awaited), key=lambda h: h.last_used_s
    )
    assert answer.evict == tuple(h.name for h in may_leave)[: len(answer.evict)]


@given(st.one_of(LEDGERS, SHARING_LEDGERS), NEEDS)
def test_memory_need_that_fits_keeps_all_reservations_under_the_limit(ledger: Ledger, need: Need):
    answer = decide(ledger, need)
    if not isinstance(answer, Fits):
        return
    staying = [h for h in ledger.holdings if h.name not in answer.evict]
    after = replace(ledger, holdings=staying).reserved_total_bytes + need.bytes
    assert after <= ledger.limit_bytes or need.bytes == 0


@given(st.one_of(LEDGERS, SHARING_LEDGERS), NEEDS, st.sets(st.sampled_from("abcdef")))
def test_memory_of_models_that_are_being_unloaded_anyway_counts_as_free(
    ledger: Ledger, need: Need, names: set[str]
):
    leaving = {h.name for h in ledger.holdings if h.name in names and not h.busy and not h.awaited}
    answer = decide(ledger, need, leaving)
    if isinstance(answer, Fits):
        assert not leaving.intersection(answer.evict)
        staying = [h for h in ledger.holdings if h.name not in leaving.union(answer.evict)]
        after = replace(ledger, holdings=staying).reserved_total_bytes + need.bytes
        assert after <= ledger.limit_bytes or need.bytes == 0
    else:
        assert not isinstance(decide(ledger, need), Fits)


@given(LEDGERS, NEEDS)
def test_memory_need_that_fits_has_as_much_free_memory_as_if_the_whole_prompt_cache_were_dropped(
    ledger: Ledger, need: Need
):
    ledger = replace(ledger, reading=replace(ledger.reading, footprint_bytes=0))
    answer = decide(ledger, need)
    if not isinstance(answer, Fits) or not answer.drop_caches:
        return
    staying = [h for h in ledger.holdings if h.name not in answer.evict]

    def free_bytes(dropped: int) -> int:
        reading = ledger.reading
        of_ready = min(dropped, reading.ready_bytes)  # these are dropped first
        after = replace(
            reading,
            available_bytes=reading.available_bytes + reading.cached_bytes + dropped,
            active_bytes=reading.active_bytes - of_ready,
            cached_bytes=0,
            ready_bytes=reading.ready_bytes - of_ready,
            prompt_cache_bytes=reading.prompt_cache_bytes - (dropped - of_ready),
        )
        return replace(ledger, reading=after, holdings=staying).free_bytes

    everything = ledger.reading.prompt_cache_bytes + ledger.reading.ready_bytes
    dropped = min(answer.lacking_bytes, everything)
    assert free_bytes(dropped) >= min(need.bytes, free_bytes(everything))


@given(LEDGERS, NEEDS, AMOUNT)
def test_memory_need_that_fits_still_fits_with_more_available_memory(ledger: Ledger, need: Need, more: int):
    if not isinstance(decide(ledger, need), Fits):
        return
    reading = replace(ledger.reading, available_bytes=ledger.reading.available_bytes + more)
    assert isinstance(decide(replace(ledger, reading=reading), need), Fits)


@given(st.one_of(LEDGERS, SHARING_LEDGERS), NEEDS)
def test_memory_need_never_waits_while_no_request_runs_and_memory_is_available(ledger: Ledger, need: Need):
    """The guard itself must never block the engine."""
    free = [replace(h, busy=False, awaited=False, reserved_bytes=0) for h in ledger.holdings]
    reading = replace(ledger.reading, available_bytes=24 * GIB)
    answer = decide(replace(ledger, holdings=free, reading=reading), need)
    assert not isinstance(answer, Wait)


@given(LEDGERS, NEEDS)
def test_memory_decision_is_the_same_whenever_memory_use_and_need_are_the_same(ledger: Ledger, need: Need):
    assert decide(ledger, need) == decide(ledger, need)
