"""Follow the Docker engine's events about this home's containers, and explain each death in the journal."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any

from host_agent.errors import DockerUnavailable
from host_agent.journal import Journal
from host_agent.services.docker import container_deaths, container_status
from host_agent.services.docker.container_deaths import STOP_WINDOW_S, Death, EventTrail, ExplainedDeath
from host_agent.services.docker.docker_api import DockerApi
from host_agent.services.docker.exit_cause import Explanation, explain

RETRY_S = 5.0
STEADY_S = 60.0  # the end of a shorter stream requests no pass, because an engine may end each stream at once
LATE_EVIDENCE_S = 1.0  # the `oom` and `kill` events and the inspect record may come after the `die` event
PENDING_S = 3.0  # a death older than this without an explanation was not watched
POLL_INTERVAL_S = 0.05
SHOWN_FOR_S = 3600.0
KEPT_DEATHS = 20
EXPECTED_STOP_S = 60.0
UNHEALTHY, HEALTHY = "health_status: unhealthy", "health_status: healthy"


class DeathWatch:
    """Explains from Docker's events why containers of the compose project `project` died. One task runs
    `run`; others call `explanation_of`.

    `on_change` is called at each event and after each explanation, because the status of a container may have
    changed.
    """

    def __init__(
        self,
        api: DockerApi,
        project: str,
        journal: Journal,
        *,
        on_change: Callable[[], None],
    ) -> None:
        self._api, self._project, self._journal, self._on_change = api, project, journal, on_change
        # The reasons for recovery passes: what happened that Docker itself does not heal.
        self.pass_requests: asyncio.Queue[str] = asyncio.Queue()
        self._trail = EventTrail()
        self._expected_stops: dict[str, tuple[str, float]] = {}
        self._explained: deque[ExplainedDeath] = deque(maxlen=KEPT_DEATHS)
        self._explaining: set[asyncio.Task[None]] = set()
        self._recording: set[asyncio.Task[None]] = set()
        self._following = False
        self._unwell: set[str] = set()  # services that have died or whose health check failed

    def expect_stop(self, container: str, by: str, within_s: float = EXPECTED_STOP_S) -> None:
        """Attribute the next death of the container with the identifier `container`, if it comes within
        `within_s`, to `by`, who is stopping it.
        """
        now = time.monotonic()
        self._expected_stops = {key: stop for key, stop in self._expected_stops.items() if now <= stop[1]}
        self._expected_stops[container] = (by, now + within_s)

    def explanation_of(self, inspect: Mapping[str, Any]) -> ExplainedDeath | None:
        """Return the explanation of the last end that a container's `docker inspect` record shows; None if it
        is unknown or older than SHOWN_FOR_S.
        """
        found = next(
            (known for known in reversed(self._explained) if _is_of(known, inspect)),
            None,
        )
        return found if found and time.time() - found.death.at <= SHOWN_FOR_S else None

    def is_explanation_pending(self, inspect: Mapping[str, Any]) -> bool:
        """Return whether a container ended at most PENDING_S seconds ago and the cause has not been
        determined yet. `inspect` is the container's `docker inspect` record. Return False while Docker's
        events are not followed.
        """
        is_recent = abs(time.time() - container_deaths.finished_at(inspect)) <= PENDING_S
        has_ended = container_deaths.has_ended(inspect)
        return self._following and is_recent and has_ended and self.explanation_of(inspect) is None

    async def wait_for_explanations(self, inspects: Sequence[Mapping[str, Any]]) -> None:
        """Wait until the cause of every death of these containers in the last PENDING_S seconds has been
        determined from Docker's events, or until the deaths are older than that. `inspects` are the
        containers' `docker inspect` records.
        """
        while any(map(self.is_explanation_pending, inspects)):  # noqa: ASYNC110 - the clock ends it too
            await asyncio.sleep(POLL_INTERVAL_S)

    async def run(self) -> None:
        """Follow the Docker engine's events about the project's containers until cancelled. Record deaths
        with their causes, and changes of health, in the journal, and request a recovery pass if Docker does
        not heal the container.

        If the stream of events ends, connect again after RETRY_S, as soon as the engine answers. Containers
        may have died without an event, so request a pass when the stream ends, and another one before
        connecting again. Request neither if the stream ended within STEADY_S although the engine answers.
        """
        while True:
            began_at = time.monotonic()
            try:
                self._following = True
                async for event in self._api.events(self._project):
                    self._on_event(event)
            except DockerUnavailable:
                pass
            finally:
                self._following = False
            await self._wait_for_engine(was_steady=time.monotonic() - began_at >= STEADY_S)

    async def _wait_for_engine(self, was_steady: bool) -> None:
        """Wait RETRY_S, and then until the Docker engine answers.

        Request a recovery pass before the wait and another one after it, because containers may have died
        without an event. No pass is requested if the engine answers when this method is called, and the
        stream of events broke soon after its start (not `was_steady`): a stream that breaks again and again
        would otherwise request passes without end.
        """
        is_news = was_steady or not await self._engine_answers()
        if is_news:
            self.pass_requests.put_nowait("the Docker engine's events broke off")
        await asyncio.sleep(RETRY_S)
        while not await self._engine_answers():  # noqa: ASYNC110 - no event announces it
            await asyncio.sleep(RETRY_S)
        if is_news:
            self._on_change()
            self.pass_requests.put_nowait("the Docker engine answers again")

    async def _engine_answers(self) -> bool:
        try:
            await self._api.version()
        except DockerUnavailable:
            return False
        return True

    def _on_event(self, event: dict[str, Any]) -> None:
        action, container = str(event.get("Action", "")), container_deaths.container_of(event)
        attributes = container_deaths.attributes(event)
        service = container_status.service_of_labels(attributes)
        self._trail.add(event)
        self._on_change()
        if action == "oom" and service:
            self._journal.record(
                service, "container_out_of_memory", "the kernel killed in it", container=container[:12]
            )
        if action == "die" and service:
            code = int(attributes.get("exitCode") or 0)
            at = container_deaths.time_of(event) or time.time()
            self._on_death(Death(service, container, at, code, self._trail.run_began_at(container)))
        if action == HEALTHY and service in self._unwell:
            self._unwell.discard(service)
            self._later(self._record_healthy(service, container), self._recording)
        if action == UNHEALTHY and service:
            self._unwell.add(service)
            self._journal.record(service, "container_unhealthy", container=container[:12])
            self.pass_requests.put_nowait(f"Docker calls {service} unhealthy")

    def _on_death(self, death: Death) -> None:
        by, until = self._expected_stops.pop(death.container, ("", 0.0))
        if time.monotonic() <= until:
            death = replace(death, stopped_by=by)
        self._unwell.add(death.service)
        self._later(self._explain(death), self._explaining)

    def _later(self, work: Coroutine[Any, Any, None], tasks: set[asyncio.Task[None]]) -> None:
        task = asyncio.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def _record_healthy(self, service: str, container: str) -> None:
        """Record in the journal that `service`, which runs in the container with the identifier `container`,
        is healthy again. First wait until every death whose cause is being determined has been recorded, so
        that the journal has the death before the recovery.
        """
        if self._explaining:
            await asyncio.wait(set(self._explaining))
        self._journal.record(service, "container_healthy", container=container[:12])

    async def _explain(self, death: Death) -> None:
        """Wait for late evidence, record the cause of the death, and request a recovery pass if Docker will
        not restart the container.
        """
        await asyncio.sleep(LATE_EVIDENCE_S)
        inspect = await self._inspect(death.container)
        found = self._explanation(death, inspect)
        self._explained.append(ExplainedDeath(death, found.cause, found.sentence))
        self._journal.record(
            death.service,
            "container_died",
            found.sentence,
            exit_code=death.exit_code,
            reason=str(found.cause),
            stopped_by=death.stopped_by,
            container=death.container[:12],
            limit_bytes=container_status.memory_limit_bytes(inspect),
        )
        self._on_change()
        # Docker's restart policy has acted by now, if at all: not after `docker kill` or `docker stop`.
        if not death.stopped_by and (not inspect or container_deaths.stays_ended(inspect)):
            self.pass_requests.put_nowait(f"{death.service} ended and Docker leaves it so")

    def _explanation(self, death: Death, inspect: dict[str, Any]) -> Explanation:
        state = inspect.get("State") or {}
        # The record of a container that runs again says nothing about the death before.
        oom_flag = bool(state.get("OOMKilled")) and not state.get("Running")
        evidence = container_status.evidence(
            inspect,
            exit_code=death.exit_code,
            oom_flag=oom_flag,
            oom_event_age_s=self._trail.age_s(death, "oom"),
            kill_request_age_s=self._trail.age_s(death, "kill"),
            stop_request_age_s=self._trail.age_s(death, "stop", STOP_WINDOW_S),
            stopped_by=death.stopped_by,
        )
        return explain(evidence)

    async def _inspect(self, container: str) -> dict[str, Any]:
        try:
            found = await self._api.containers(self._project)
        except DockerUnavailable:
            return {}
        return next((entry for entry in found if entry.get("Id") == container), {})


def _is_of(explained: ExplainedDeath, inspect: Mapping[str, Any]) -> bool:
    return container_deaths.is_last_end_of(explained.death, inspect)
