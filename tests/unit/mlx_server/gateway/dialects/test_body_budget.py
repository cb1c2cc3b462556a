"""All large bodies together have a bounded share of the memory; small ones never wait for them."""

from __future__ import annotations

import asyncio

import pytest

from mlx_server.gateway.dialects.body_budget import SMALL_BYTES, BodyBudget, BodyShare
from mlx_server.gateway.errors import Unavailable

LARGE = 4 * SMALL_BYTES


async def test_body_budget_grants_a_small_body_at_once():
    budget = BodyBudget(LARGE)
    await BodyShare(budget).cover(LARGE)
    small = BodyShare(budget)
    async with asyncio.timeout(1):
        await small.cover(SMALL_BYTES)
    assert small.held_bytes == 0


async def test_body_waiting_too_long_for_an_exhausted_body_budget_is_refused_with_retry_after():
    budget = BodyBudget(LARGE, wait_s=0.01)
    await BodyShare(budget).cover(LARGE)
    with pytest.raises(Unavailable, match="body_budget_bytes") as refused:
        await BodyShare(budget).cover(2 * SMALL_BYTES)
    assert (refused.value.code, "Retry-After" in refused.value.headers()) == ("overloaded", True)
    assert not budget.is_wanted


async def test_body_budget_gives_returned_shares_to_waiting_bodies_in_order():
    budget = BodyBudget(LARGE)
    first, second, third = BodyShare(budget), BodyShare(budget), BodyShare(budget)
    await first.cover(LARGE)
    large = asyncio.ensure_future(second.cover(LARGE))
    less = asyncio.ensure_future(third.cover(2 * SMALL_BYTES))
    await asyncio.sleep(0)
    assert budget.is_wanted
    first.give_back()
    await large
    await asyncio.sleep(0)
    assert not less.done()
    second.give_back()
    await less
    assert (first.held_bytes, second.held_bytes, third.held_bytes) == (0, 0, 2 * SMALL_BYTES)


async def test_body_budget_frees_the_share_of_a_client_that_disconnects_while_waiting():
    budget = BodyBudget(LARGE)
    first = BodyShare(budget)
    await first.cover(LARGE)
    waiting = [asyncio.ensure_future(BodyShare(budget).cover(LARGE)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    first.give_back()  # before the task notes that it was cancelled
    await waiting[1]
    waiting[2].cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert not budget.is_wanted


async def test_body_budget_share_granted_during_cancellation_is_returned():
    budget = BodyBudget(LARGE)
    first = BodyShare(budget)
    await first.cover(LARGE)
    late = asyncio.ensure_future(BodyShare(budget).cover(LARGE))
    await asyncio.sleep(0)
    first.give_back()
    late.cancel()
    await asyncio.gather(late, return_exceptions=True)
    async with asyncio.timeout(1):
        await BodyShare(budget).cover(LARGE)


async def test_body_larger_than_the_body_budget_is_granted_the_whole_budget_without_waiting():
    budget = BodyBudget(LARGE)
    share = BodyShare(budget)
    async with asyncio.timeout(1):
        await share.cover(2 * LARGE)
        await share.cover(3 * LARGE)
    assert share.held_bytes == LARGE


async def test_body_budget_share_grows_with_its_body_and_is_returned_only_once():
    budget = BodyBudget(LARGE)
    share = BodyShare(budget)
    await share.cover(2 * SMALL_BYTES)
    await share.cover(2 * SMALL_BYTES)
    await share.cover(LARGE)
    assert share.held_bytes == LARGE
    share.give_back()
    share.give_back()
    await BodyShare(budget).cover(LARGE)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await BodyShare(budget).cover(LARGE)
