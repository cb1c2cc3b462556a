"""Let callers wait until a child is in one of several states."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from vestal.supervision.lifecycle.states import State


class StateWaiters:
    """The callers that wait, each for one child to enter one of a set of states."""

    def __init__(self) -> None:
        self._waiters: list[tuple[str, Collection[State], asyncio.Future[None]]] = []

    def notify(self, name: str, state: State) -> None:
        """Wake the callers that wait for this child to be in this state."""
        for waiting_for, states, arrived in self._waiters:
            if waiting_for == name and state in states and not arrived.done():
                arrived.set_result(None)

    async def wait(self, name: str, states: Collection[State], timeout_s: float) -> None:
        """Wait until `notify` reports the child in one of the states; the present state does not count.

        Raises TimeoutError after `timeout_s`.
        """
        arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter = (name, states, arrived)
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(timeout_s):
                await arrived
        finally:
            self._waiters.remove(waiter)
