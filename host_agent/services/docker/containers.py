"""The containers of the orchestrator, of `nightly`, the service for long work at night, and of the workers:
their status; start, stop and restart.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Any

from host_agent.errors import DockerUnavailable
from host_agent.journal import Journal
from host_agent.services import IN_CONTAINERS
from host_agent.services.docker import container_activity, container_status
from host_agent.services.docker.compose import WORKER, Compose
from host_agent.services.docker.container_deaths import ExplainedDeath
from host_agent.services.docker.death_watch import DeathWatch
from host_agent.services.docker.docker_api import DockerApi
from host_agent.services.service_status import ServiceStatus
from vestal.supervision import ProcessActivity, StateStore

CACHE_S = 0.5
STOP_S = 20
START_TIMEOUT_S = 120.0  # of a container whose image is built: a pass must not wait longer for a hung engine


class Containers:
    """Reports the status of the containers of this home's compose project, and starts, stops and restarts
    them. A stop by hand is remembered until a person has the agent start or restart the service, or until the
    container was started in any other way, for example with `docker start`.
    """

    def __init__(self, api: DockerApi, compose: Compose, journal: Journal, store: StateStore) -> None:
        self._api, self._compose, self._store = api, compose, store
        self.deaths = DeathWatch(api, compose.project, journal, on_change=self._drop_cache)
        self._cache: tuple[float, list[dict[str, Any]]] = (0.0, [])

    async def observe(self, fresh: bool = False) -> dict[str, ServiceStatus]:
        """Return the status of each service that has a container. Raises DockerUnavailable if the Docker
        engine does not answer.

        With `fresh`, query the engine instead of a cache, and wait until the cause of a container's recent
        death is known.
        """
        found = await self._inspect(fresh)
        if fresh and any(self.deaths.is_explanation_pending(inspect) for inspect in found.values()):
            await self.deaths.wait_for_explanations(list(found.values()))
            found = await self._inspect(fresh)
        return {name: self._service_status(name, found[name]) for name in IN_CONTAINERS if name in found}

    async def workers(self) -> list[ServiceStatus]:
        """Return the status of each worker; every worker has a container of its own. Raises DockerUnavailable
        if the Docker engine does not answer.
        """
        records = await self._records()
        return [
            self._service_status(WORKER, record)
            for record in records
            if container_status.service_of(record) == WORKER
        ]

    async def activity(self, service: str, main_pid: int) -> ProcessActivity:
        """Return what the processes in a service's container do: the CPU time of all, and the state of the
        process `main_pid`. Raises DockerUnavailable if the Docker engine does not answer or the service has
        no container.
        """
        container = str((await self._record(service))["Id"])
        top = await self._api.top(container, container_activity.PS_ARGUMENTS)
        return container_activity.parse_top(top, main_pid)

    async def bring_up(self, service: str) -> None:
        """Create the container of a service if it does not exist, and start it, without waiting until it is
        healthy. Build the image only if it is missing.

        Raises DockerUnavailable if the Docker engine does not answer or the `docker` command is missing, or
        ComposeFailed if `docker compose` fails.
        """
        if not await self._api.has_image(self._compose.image):
            await self._compose.run("build")  # `up` would look for the image in a registry
        up = ("up", "--detach", "--no-deps", service)
        await self._act(lambda: self._compose.run(*up, timeout_s=START_TIMEOUT_S))

    async def restart(self, service: str, by: str, stop_s: int = STOP_S, container: str = "") -> None:
        """Restart a container of the service, or start it if it has ended. `by` says who asks for it, and
        `stop_s` is the time between SIGTERM and SIGKILL in seconds. `container` is the beginning of the
        container's identifier; it may be "" if the service has only one container.
        """
        record = await self._record(service, container)
        if container_status.is_running(record):
            self.deaths.expect_stop(str(record["Id"]), by)
        await self._act(lambda: self._api.restart(str(record["Id"]), stop_s))

    async def restart_by_hand(self, service: str, by: str) -> None:
        """Restart a service because `by` asks for it, and forget that a person may have stopped it, so that
        recovery passes start it again too.
        """
        self.clear_manual_stop(service)
        await self.restart(service, by)

    async def unpause(self, service: str, container: str = "") -> None:
        """Resume a paused container of the service. `container` is the beginning of the container's
        identifier; it may be "" if the service has only one container.
        """
        record = await self._record(service, container)
        await self._act(lambda: self._api.unpause(str(record["Id"])))

    def clear_manual_stop(self, service: str) -> None:
        """Forget that a person stopped the service, so that recovery passes start it again."""
        self._store.save(_key(service), {"stopped_by_hand": False})

    async def start_by_hand(self, service: str) -> None:
        """Start a service because a person asks for it, and forget that a person may have stopped it, so that
        recovery passes start it again too. Return when its container has been started.

        Raises DockerUnavailable if the Docker engine does not answer, or ComposeFailed if `docker compose`
        fails.
        """
        self.clear_manual_stop(service)
        await self.bring_up(service)

    async def stop_by_hand(self, service: str, by: str) -> None:
        """Stop a service because `by` asks for it. Afterwards, neither recovery passes nor Docker's restart
        policy start it. A service without a container needs no stop, and is not started either.

        Raises DockerUnavailable if the container cannot be stopped; recovery passes then go on to repair it.
        """
        record = (await self._inspect(fresh=True)).get(service, {})
        self._store.save(_key(service), {"stopped_by_hand": True, "run": container_status.run_of(record)})
        if not record:
            return
        self.deaths.expect_stop(str(record["Id"]), by)
        try:
            await self._act(lambda: self._api.stop(str(record["Id"]), STOP_S))
        except DockerUnavailable:
            self.clear_manual_stop(service)
            raise

    def stopped_by_hand(self, service: str) -> bool:
        """Return whether a person stopped the service and nobody has started it since."""
        return bool((self._store.load(_key(service)) or {}).get("stopped_by_hand"))

    def _service_status(self, service: str, inspect: dict[str, Any]) -> ServiceStatus:
        death = self.deaths.explanation_of(inspect)
        return container_status.service_status(
            inspect,
            time.time(),
            self._last_death(inspect, death),
            is_recurring=bool(death and death.is_recurring),
            stopped_by_hand=self.stopped_by_hand(service),
        )

    def _last_death(self, inspect: dict[str, Any], death: ExplainedDeath | None) -> str:
        if death:
            at = time.strftime("%H:%M", time.localtime(death.death.at))
            return f"{at}: {death.sentence}"
        pending = self.deaths.is_explanation_pending(inspect)
        return "" if pending else container_status.explain_from_record(inspect)

    async def _act(self, action: Callable[[], Awaitable[None]]) -> None:
        try:
            await action()
        finally:
            self._drop_cache()

    async def _record(self, service: str, container: str = "") -> dict[str, Any]:
        """Return the `docker inspect` record of the service's container whose identifier begins with
        `container`. Raises DockerUnavailable if there is none.
        """
        of_service = (r for r in await self._records() if container_status.service_of(r) == service)
        found = [record for record in of_service if str(record["Id"]).startswith(container)]
        if not found:
            missing = f"no container {container}" if container else "no container"
            maker = "vestal up" if service == WORKER else "vestal recover --once"
            raise DockerUnavailable(f"{service} has {missing}: `{maker}` makes one.")
        return found[-1]

    async def _inspect(self, fresh: bool = False) -> dict[str, dict[str, Any]]:
        """Return the `docker inspect` record of one container of each service, by service. The records are at
        most CACHE_S old, or read now if `fresh`.
        """
        return {container_status.service_of(record): record for record in await self._records(fresh)}

    async def _records(self, fresh: bool = False) -> list[dict[str, Any]]:
        """Return the `docker inspect` records of the services' containers, at most CACHE_S old, or read now
        if `fresh`.
        """
        asked_at, found = self._cache
        now = time.monotonic()
        if fresh or now - asked_at > CACHE_S:
            listed = await self._api.containers(self._compose.project)
            found = [record for record in listed if container_status.service_of(record)]
            for record in found:
                self._end_stop_of_started(record)
            self._cache = (now, found)  # the age of an answer counts from its request
        return found

    def _end_stop_of_started(self, record: dict[str, Any]) -> None:
        """Forget a stop by hand if the container has been started since, for example with `docker start`."""
        service = container_status.service_of(record)
        saved = self._store.load(_key(service)) or {}
        was_started = container_status.is_running(record) and saved.get("run") != container_status.run_of(
            record
        )
        if saved.get("stopped_by_hand") and was_started:
            self.clear_manual_stop(service)

    def _drop_cache(self) -> None:
        self._cache = (0.0, [])


def _key(service: str) -> str:
    return f"container:{service}"
