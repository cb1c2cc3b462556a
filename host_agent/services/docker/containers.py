"""The containers of the orchestrator and of `nightly`, the service for long work at night: their status;
start, stop and restart.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Any

from host_agent.errors import DockerUnavailable
from host_agent.journal import Journal
from host_agent.services import IN_CONTAINERS
from host_agent.services.docker import container_activity, container_status
from host_agent.services.docker.compose import Compose
from host_agent.services.docker.container_deaths import ExplainedDeath
from host_agent.services.docker.death_watch import DeathWatch
from host_agent.services.docker.docker_api import DockerApi
from host_agent.services.service_status import ServiceStatus
from vestal.supervision import ProcessActivity, StateStore

CACHE_S = 0.5
STOP_S = 20


class Containers:
    """Reports the status of the containers of this home's compose project, and starts, stops and restarts
    them. A stop by hand lasts until a start by hand.
    """

    def __init__(self, api: DockerApi, compose: Compose, journal: Journal, store: StateStore) -> None:
        self._api, self._compose, self._store = api, compose, store
        self.deaths = DeathWatch(api, compose.project, journal, on_change=self._drop_cache)
        self._cache: tuple[float, dict[str, dict[str, Any]]] = (0.0, {})

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

    async def activity(self, service: str, main_pid: int) -> ProcessActivity:
        """Return what the processes in a service's container do: the CPU time of all, and the state of the
        process `main_pid`. Raises DockerUnavailable if the Docker engine does not answer or the service has
        no container.
        """
        top = await self._api.top(await self._id(service), container_activity.PS_ARGUMENTS)
        return container_activity.parse_top(top, main_pid)

    async def bring_up(self, service: str) -> None:
        """Create the container of a service if it does not exist, and start it, without waiting until it is
        healthy. Build the image only if it is missing.

        Raises DockerUnavailable if the Docker engine does not answer or the `docker` command is missing, or
        ComposeFailed if `docker compose` fails.
        """
        if not await self._api.has_image(self._compose.image):
            await self._compose.run("build")  # `up` would look for the image in a registry
        await self._act(lambda: self._compose.run("up", "--detach", "--no-deps", service))

    async def restart(self, service: str, by: str, stop_s: int = STOP_S) -> None:
        """Restart a container. `by` says who asks for it, and `stop_s` is the time between SIGTERM and
        SIGKILL in seconds.
        """
        self.deaths.expect_stop(service, by)
        container = await self._id(service)
        await self._act(lambda: self._api.restart(container, stop_s))

    async def unpause(self, service: str) -> None:
        """Resume a paused container."""
        container = await self._id(service)
        await self._act(lambda: self._api.unpause(container))

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
        policy start it.
        """
        self._store.save(_key(service), {"stopped_by_hand": True})
        self.deaths.expect_stop(service, by)
        container = await self._id(service)
        await self._act(lambda: self._api.stop(container, STOP_S))

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

    async def _id(self, service: str) -> str:
        found = (await self._inspect()).get(service)
        if found is None:
            raise DockerUnavailable(f"{service} has no container: `vestal recover --once` makes one.")
        return str(found["Id"])

    async def _inspect(self, fresh: bool = False) -> dict[str, dict[str, Any]]:
        """Return the `docker inspect` record of each service's container, at most CACHE_S old, or read now if
        `fresh`.
        """
        asked_at, found = self._cache
        now = time.monotonic()
        if fresh or now - asked_at > CACHE_S:
            listed = await self._api.containers(self._compose.project)
            found = {container_status.service_of(entry): entry for entry in listed}
            self._cache = (now, found)  # the age of an answer counts from its request
        return found

    def _drop_cache(self) -> None:
        self._cache = (0.0, {})


def _key(service: str) -> str:
    return f"container:{service}"
