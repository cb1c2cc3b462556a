"""Cancel an asyncio task and wait for its end, without losing the cancellation of the caller."""

from __future__ import annotations

import asyncio


async def cancel_and_wait(task: asyncio.Future[None]) -> None:
    """Cancel `task` and wait until it has ended. Raises the task's own exception, and CancelledError only if
    the caller is cancelled meanwhile. `suppress(CancelledError)` around `await task` would swallow the
    cancellation of the caller too.
    """
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
