"""Replace the engine when the recycle policy says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from mlx_server.gateway.engine_process.recycle_policy import RecyclePolicy
from mlx_server.gateway.engine_process.session import EngineSession
from mlx_server.gateway.telemetry import Telemetry
from vestal.supervision import Clock


class Recycler:
    """Asks the recycle policy at each health check, and restarts the engine once its replacement is due.

    `new_policy` makes the policy for an engine that starts at the given time; `restart` replaces the engine,
    with the cause as its argument. The requests of a replaced engine continue in the next one.
    """

    def __init__(
        self,
        new_policy: Callable[[float], RecyclePolicy],
        restart: Callable[[str], Coroutine[Any, Any, None]],
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self._new_policy = new_policy
        self._restart = restart
        self._clock = clock
        self._telemetry = telemetry
        self._policy = new_policy(clock.now())
        self._replacement: asyncio.Task[None] | None = None

    def engine_launched(self) -> None:
        """Create a recycle policy for an engine that has just been launched. It replaces the policy of the
        previous engine.
        """
        self._policy = self._new_policy(self._clock.now())

    def check(self, session: EngineSession, busy: bool) -> None:
        """Start to replace the engine of `session` if the recycle policy finds that the engine holds too much
        memory or is too old. Do nothing if the engine is not ready, or is being replaced already. If the
        engine has running requests (`busy`), the policy puts its replacement off for a limited time.
        """
        report = session.report
        cause = self._policy.due(report.footprint_bytes, report.limit_bytes, busy, self._clock.now())
        under_way = self._replacement is not None and not self._replacement.done()
        if cause and session.ready and not under_way:
            self._telemetry.emit("engine_recycled", cause, pid=session.pid)
            self._replacement = asyncio.ensure_future(self._restart(cause))

    async def stop(self) -> None:
        """Cancel a replacement that is in progress."""
        if self._replacement is not None:
            self._replacement.cancel()
            await asyncio.gather(self._replacement, return_exceptions=True)
