"""Follows the engine's events of our containers, and says of each death what it was."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from host_agent.errors import DockerUnavailable
from host_agent.journal import Journal
from host_agent.services.docker import container_deaths, container_status
from host_agent.services.docker.container_deaths import STOP_WITHIN_S, Death, ExplainedDeath, Trail
from host_agent.services.docker.docker_api import DockerApi
from host_agent.services.docker.exit_cause import Explanation, explain

RETRY_S = 5.0
LATE_EVIDENCE_S = 1.0  # the `oom` and `kill` events and the inspect record may come after the `die` event
STILL_COMING_S = 3.0  # an end older than this, of which nothing was told, was not watched
LOOK_EACH_S = 0.05
TELL_FOR_S = 3600.0
KEEP_DEATHS = 20
UNHEALTHY = "health_status: unhealthy"


class DeathWatch:
    """Live evidence: `oom`, `kill`, `start` and `die`. One task follows, readers ask `told`."""

    def __init__(
        self,
        api: DockerApi,
        project: str,
        journal: Journal,
        *,
        on_change: Callable[[], None],
    ) -> None:
        self._api, self._project, self._journal, self._on_change = api, project, journal, on_change
        self.calls_for_a_pass: asyncio.Queue[str] = (
            asyncio.Queue()
        )  # sentences: what Docker itself will not heal
        self._trail = Trail()
        self._stopped_by: dict[str, tuple[str, float]] = {}
        self._told: deque[ExplainedDeath] = deque(maxlen=KEEP_DEATHS)
        self._explaining: set[asyncio.Task[None]] = set()
        self._following = False

    def expect_stop(self, service: str, by: str, within_s: float = 60.0) -> None:
        """We are about to stop this container ourselves."""
        self._stopped_by[service] = (by, time.monotonic() + within_s)

    def told(self, inspect: Mapping[str, Any]) -> ExplainedDeath | None:
        """What is known of the last end of this very container, for as long as that is news."""
        found = next(
            (told for told in reversed(self._told) if container_deaths.is_of(told.death, inspect)), None
        )
        return found if found and time.time() - found.death.at <= TELL_FOR_S else None

    def is_coming(self, inspect: Mapping[str, Any]) -> bool:
        """Whether it ended so lately that its explanation is still to be awaited."""
        lately = abs(time.time() - container_deaths.finished_at(inspect)) <= STILL_COMING_S
        return (
            self._following and lately and container_deaths.has_ended(inspect) and self.told(inspect) is None
        )

    async def settled(self, inspects: Sequence[Mapping[str, Any]]) -> None:
        """Until the late evidence on whatever has just ended is in. Bounded."""
        while any(self.is_coming(inspect) for inspect in inspects):  # noqa: ASYNC110 - it ends by the clock too
            await asyncio.sleep(LOOK_EACH_S)

    async def run(self) -> None:
        """Follow for ever; an engine that is away is asked again."""
        while True:
            try:
                self._following = True
                async for event in self._api.events(self._project):
                    self._take(event)
            except DockerUnavailable:
                pass
            finally:
                self._following = False
            await asyncio.sleep(RETRY_S)

    def _take(self, event: dict[str, Any]) -> None:
        action, container = str(event.get("Action", "")), container_deaths.container_of(event)
        attributes = container_deaths.attributes(event)
        service = str(attributes.get("com.docker.compose.service", ""))
        self._trail.take(event)
        self._on_change()
        if action == "oom":
            self._journal.record(
                service, "container_out_of_memory", "the kernel killed in it", container=container[:12]
            )
        if action == "die" and service:
            code = int(attributes.get("exitCode") or 0)
            began_at, at = self._trail.began_at(container), container_deaths.time_of(event) or time.time()
            self._died(Death(service, container, at, code, began_at))
        if action == UNHEALTHY and service:
            self._journal.record(service, "container_unhealthy", container=container[:12])
            self.calls_for_a_pass.put_nowait(f"Docker calls {service} unhealthy")

    def _died(self, death: Death) -> None:
        by, until = self._stopped_by.pop(death.service, ("", 0.0))  # it speaks of one end only
        if time.monotonic() <= until:
            death = replace(death, stopped_by=by)
        task = asyncio.create_task(self._explain(death))
        self._explaining.add(task)
        task.add_done_callback(self._explaining.discard)

    async def _explain(self, death: Death) -> None:
        await asyncio.sleep(LATE_EVIDENCE_S)
        inspect = await self._inspect(death.container)
        found = self._explanation(death, inspect)
        self._told.append(ExplainedDeath(death, found.cause, found.sentence))
        self._journal.record(
            death.service,
            "container_died",
            found.sentence,
            exit_code=death.exit_code,
            reason=str(found.cause),
            container=death.container[:12],
            limit_bytes=container_status.limit(inspect),
        )
        self._on_change()
        # Docker's restart policy has had its second; to it, `docker kill` and `stop` are a person's wish.
        if not death.stopped_by and (not inspect or container_deaths.stays_ended(inspect)):
            self.calls_for_a_pass.put_nowait(f"{death.service} ended and Docker leaves it so")

    def _explanation(self, death: Death, inspect: dict[str, Any]) -> Explanation:
        state = inspect.get("State") or {}
        # The record may already be that of the next run, whose flag says nothing of this end.
        flag = bool(state.get("OOMKilled")) and not state.get("Running")
        evidence = container_status.evidence(
            inspect,
            exit_code=death.exit_code,
            oom_flag=flag,
            oom_event_age_s=self._trail.age(death, "oom"),
            kill_request_age_s=self._trail.age(death, "kill"),
            stop_request_age_s=self._trail.age(death, "stop", STOP_WITHIN_S),
            stopped_by=death.stopped_by,
        )
        return explain(evidence)

    async def _inspect(self, container: str) -> dict[str, Any]:
        try:
            found = await self._api.containers(self._project)
        except DockerUnavailable:
            return {}
        return next((entry for entry in found if entry.get("Id") == container), {})
