"""Follows the engine's events of our containers, and says of each death what it was."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from host_agent.errors import DockerUnavailable
from host_agent.journal import Journal
from host_agent.services import container_row
from host_agent.services.docker_api import DockerApi
from host_agent.services.exit_cause import Explanation, explain

RETRY_S = 5.0
LATE_EVIDENCE_S = 1.0  # the `oom` event and the inspect record may come after the `die` event
TELL_FOR_S = 3600.0
SIGKILL = "9"


class DeathWatch:
    """Live evidence: `oom`, `kill` and `die`. One task follows, readers ask `told`."""

    def __init__(
        self, api: DockerApi, project: str, journal: Journal, *, on_change: Callable[[], None]
    ) -> None:
        self._api, self._project, self._journal, self._on_change = api, project, journal, on_change
        self._seen: dict[tuple[str, str], float] = {}
        self._stopped_by: dict[str, tuple[str, float]] = {}
        self._told: dict[str, tuple[str, float]] = {}
        self._explaining: set[asyncio.Task[None]] = set()

    def expect_stop(self, service: str, by: str, within_s: float = 60.0) -> None:
        """We are about to stop this container ourselves."""
        self._stopped_by[service] = (by, time.time() + within_s)

    def told(self, service: str) -> str:
        """Why it last died, for as long as that is news."""
        sentence, at = self._told.get(service, ("", 0.0))
        if not sentence or time.time() - at > TELL_FOR_S:
            return ""
        return f"{time.strftime('%H:%M', time.localtime(at))}: {sentence}"

    async def run(self) -> None:
        """Follow for ever; an engine that is away is asked again."""
        while True:
            try:
                async for event in self._api.events(self._project):
                    self._take(event)
            except DockerUnavailable:
                pass
            await asyncio.sleep(RETRY_S)

    def _take(self, event: dict[str, Any]) -> None:
        action = str(event.get("Action", ""))
        actor = event.get("Actor") or {}
        attributes = actor.get("Attributes") or {}
        container, at = str(actor.get("ID", "")), float(event.get("time") or time.time())
        service = str(attributes.get("com.docker.compose.service", ""))
        if action == "oom" or (action == "kill" and str(attributes.get("signal")) == SIGKILL):
            self._seen[container, action] = at
        if action == "oom":
            self._journal.record(
                service, "container_out_of_memory", "the kernel killed in it", container=container[:12]
            )
        if action == "die" and service:
            task = asyncio.create_task(
                self._explain(service, container, int(attributes.get("exitCode") or 0), at)
            )
            self._explaining.add(task)
            task.add_done_callback(self._explaining.discard)
        self._on_change()

    async def _explain(self, service: str, container: str, code: int, at: float) -> None:
        await asyncio.sleep(LATE_EVIDENCE_S)
        inspect = await self._inspect(container)
        found = self._explanation(service, container, code, at, inspect)
        self._told[service] = (found.sentence, at)
        self._journal.record(
            service,
            "container_died",
            found.sentence,
            exit_code=code,
            reason=str(found.cause),
            container=container[:12],
            limit_bytes=container_row.limit(inspect),
        )
        self._on_change()

    def _explanation(
        self, service: str, container: str, code: int, at: float, inspect: dict[str, Any]
    ) -> Explanation:
        by, until = self._stopped_by.get(service, ("", 0.0))
        state = inspect.get("State") or {}
        # The record may already be that of the next run, whose flag says nothing of this end.
        flag = bool(state.get("OOMKilled")) and not state.get("Running")
        evidence = container_row.evidence(
            inspect,
            exit_code=code,
            oom_flag=flag,
            oom_event_age_s=self._age(container, "oom", at),
            kill_request_age_s=self._age(container, "kill", at),
            stopped_by=by if at <= until else "",
        )
        return explain(evidence)

    async def _inspect(self, container: str) -> dict[str, Any]:
        try:
            found = await self._api.containers(self._project)
        except DockerUnavailable:
            return {}
        return next((entry for entry in found if entry.get("Id") == container), {})

    def _age(self, container: str, action: str, at: float) -> float | None:
        seen = self._seen.get((container, action))
        return None if seen is None else at - seen
