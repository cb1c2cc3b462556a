"""Which failures let another machine serve a request, and which machine is chosen for it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_server.gateway.peers.machine_choice import (
    FAR_S,
    HERE,
    LONGER_PREFIX_BYTES,
    MAX_REFUSALS,
    Machine,
    Refusals,
    is_engine_start_far_off,
    machine_for,
    may_be_mended_elsewhere,
    order_of_offers,
)

counts = st.integers(0, 4)
machines = st.builds(
    Machine,
    st.just("http://peer"),
    st.booleans(),
    counts,
    counts,
    counts,
    st.sampled_from([0, 100, LONGER_PREFIX_BYTES, 100_000]),
)


@st.composite
def choices(draw: st.DrawFn) -> tuple[Machine, list[Machine]]:
    here = replace(draw(machines), url=HERE)
    return here, [
        replace(peer, url=f"http://{n}") for n, peer in enumerate(draw(st.lists(machines, max_size=4)))
    ]


@pytest.mark.parametrize(
    "code", ["engine_unavailable", "insufficient_memory", "draining", "model_not_found", "overloaded"]
)
def test_error_caused_by_this_machine_lets_another_machine_serve_the_request(code):
    assert may_be_mended_elsewhere(code)


@pytest.mark.parametrize(
    "code",
    ["invalid_request", "invalid_json", "context_exceeded", "engine_crashed", "empty_prompt", "too_large"],
)
def test_error_caused_by_the_request_itself_is_not_passed_to_another_machine(code):
    assert not may_be_mended_elsewhere(code)


def test_engine_start_counts_as_far_in_the_future_only_if_an_open_breaker_delays_it_beyond_the_threshold():
    assert is_engine_start_far_off(FAR_S + 1.1, 1.0)
    assert not any(is_engine_start_far_off(trial_at, 1.0) for trial_at in (None, 0.0, 1.0, FAR_S + 1.0))


@given(choices())
def test_machine_chosen_for_a_request_is_this_machine_or_a_peer_that_serves_requests(drawn):
    here, peers = drawn
    chosen = machine_for(here, peers)
    assert chosen == HERE or any(peer.serves for peer in peers if peer.url == chosen)


@given(choices())
def test_free_machine_serves_a_request_itself_unless_a_free_peer_has_much_more_of_its_prefix_cached(drawn):
    here, peers = drawn
    here = replace(here, serves=True, waiting=0, running=0, slots=1)
    chosen = next((peer for peer in peers if peer.url == machine_for(here, peers)), None)
    longest = max((peer.prefix_bytes for peer in peers if peer.is_free), default=0)
    if longest - here.prefix_bytes >= LONGER_PREFIX_BYTES:
        assert chosen is not None and chosen.is_free and chosen.prefix_bytes == longest
    else:
        assert chosen is None


@given(choices())
def test_busy_machine_gives_a_request_only_to_a_free_peer_or_to_a_shorter_queue(drawn):
    here, peers = drawn
    here = replace(here, serves=True, slots=0)
    chosen = next((peer for peer in peers if peer.url == machine_for(here, peers)), here)
    if any(peer.is_free for peer in peers):
        assert chosen.is_free
        assert chosen.prefix_bytes == max(peer.prefix_bytes for peer in peers if peer.is_free)
    else:
        saved = [chosen.prefix_bytes - machine.prefix_bytes for machine in (here, *peers) if machine.serves]
        longer = [chosen.waiting - machine.waiting for machine in (here, *peers) if machine.serves]
        assert all(w * LONGER_PREFIX_BYTES <= p for w, p in zip(longer, saved, strict=True))


def test_request_to_a_full_fleet_accepts_a_longer_queue_where_more_of_its_prefix_is_cached():
    """A full fleet sent each turn to the shortest queue, where its whole conversation was computed anew."""
    here = Machine(HERE, serves=True, running=2, waiting=2, slots=2, prefix_bytes=3 * LONGER_PREFIX_BYTES)
    elsewhere = Machine("http://b", serves=True, running=2, waiting=1, slots=2)
    assert machine_for(here, [elsewhere]) == HERE
    assert machine_for(replace(here, waiting=5), [elsewhere]) == elsewhere.url
    assert machine_for(replace(here, prefix_bytes=0), [elsewhere]) == elsewhere.url


@given(st.lists(machines, max_size=5))
def test_request_is_offered_to_all_serving_machines_and_to_free_ones_first(peers):
    named = [replace(peer, url=str(number)) for number, peer in enumerate(peers)]
    order = [next(peer for peer in named if peer.url == url) for url in order_of_offers(named)]
    assert sorted(peer.url for peer in order) == sorted(peer.url for peer in named if peer.serves)
    freedom = [peer.is_free for peer in order]
    assert freedom == sorted(freedom, reverse=True)
    waiting = [peer.waiting for peer in order if not peer.is_free]
    assert waiting == sorted(waiting)


def test_refusal_of_a_model_counts_for_its_time_or_until_the_machine_accepts_the_model():
    refusals = Refusals(60.0)
    refusals.note("http://a", "chat", 1.0)
    refusals.note("http://b", "chat", 50.0)
    refusals.note("http://b", "other", 50.0)
    assert refusals.urls("chat", 61.0) == {"http://a", "http://b"}
    assert refusals.urls("chat", 61.1) == {"http://b"}
    refusals.drop("http://b", "chat")
    assert (refusals.urls("chat", 61.1), refusals.urls("other", 61.1)) == (set(), {"http://b"})


def test_refusals_take_little_memory_however_many_and_long_the_names_of_models_are():
    """Each refused name was kept forever: 30 requests with long names took 3 MB."""
    refusals = Refusals(60.0)
    for number in range(MAX_REFUSALS + 10):
        refusals.note("http://a", "x" * 10_000 + str(number), 1.0)
    assert len(refusals._refused_at) == MAX_REFUSALS
    assert all(len(digest) == 16 for digest, _ in refusals._refused_at)
    assert refusals.urls("x" * 10_000 + str(MAX_REFUSALS), 1.0) == {"http://a"}
