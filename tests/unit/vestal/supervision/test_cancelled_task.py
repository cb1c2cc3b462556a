"""Cancelling a task and waiting for its end."""

from __future__ import annotations

import asyncio

import pytest

from vestal.supervision.cancelled_task import cancel_and_wait


async def test_cancel_and_wait_returns_once_the_task_has_cleaned_up():
    steps: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            steps.append("cleaned up")

    task = asyncio.ensure_future(work())
    await asyncio.sleep(0)
    await cancel_and_wait(task)
    assert steps == ["cleaned up"]
    await cancel_and_wait(task)


async def test_cancel_and_wait_raises_the_error_of_the_task():
    async def work() -> None:
        raise ValueError("broken")

    task = asyncio.ensure_future(work())
    await asyncio.sleep(0)
    with pytest.raises(ValueError, match="broken"):
        await cancel_and_wait(task)


async def test_cancel_and_wait_raises_the_cancellation_of_its_caller():
    """`suppress(CancelledError)` around `await task` swallowed it, and the caller went on."""
    clean = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await clean.wait()

    task = asyncio.ensure_future(work())
    await asyncio.sleep(0)
    caller = asyncio.ensure_future(cancel_and_wait(task))
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.wait([caller])
    assert (caller.cancelled(), task.done()) == (True, False)
    clean.set()
    await asyncio.wait([task])
