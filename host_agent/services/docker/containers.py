"""The orchestrator's and nightly's containers: what state they are in, and how they are brought up."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from host_agent.errors import DockerUnavailable
from host_agent.journal import Journal
from host_agent.services import IN_CONTAINERS
from host_agent.services.docker import container_status
from host_agent.services.docker.compose import Compose
from host_agent.services.docker.container_deaths import ExplainedDeath
from host_agent.services.docker.death_watch import DeathWatch
from host_agent.services.docker.docker_api import DockerApi
from host_agent.services.service_status import ServiceStatus
from vestal.supervision import State, StateStore

FRESH_S = 0.5
STOP_S = 20


class Containers:
    """The containers of this home's compose project. A stop by hand is kept until a start by hand."""

    def __init__(self, api: DockerApi, compose: Compose, journal: Journal, store: StateStore) -> None:
        self._api, self._compose, self._store = api, compose, store
        self.deaths = DeathWatch(api, compose.project, journal, on_change=self._forget)
        self._cache: tuple[float, dict[str, dict[str, Any]]] = (0.0, {})

    async def rows(self, fresh: bool = False) -> dict[str, ServiceStatus]:
        """A row for each service; all `stopped` where the engine does not answer. `fresh`: looked at now, and
        with the late evidence on what has just died."""
        try:
            found = await self._inspected(fresh)
            if fresh and any(self.deaths.is_coming(inspect) for inspect in found.values()):
                await self.deaths.settled(list(found.values()))
                found = await self._inspected(fresh)
        except DockerUnavailable as error:
            return {name: ServiceStatus(State.STOPPED, detail=str(error)) for name in IN_CONTAINERS}
        return {name: self._row(name, found.get(name)) for name in IN_CONTAINERS}

    async def exist(self) -> bool:
        """Whether the project has containers, in whatever state."""
        return bool(await self._inspected())

    async def bring_up(self, service: str) -> None:
        """Create and start what is missing or stopped of one service; builds only a missing image."""
        if not await self._api.has_image(self._compose.image):
            await self._compose.run("build")  # compose would look for it in a registry
        await self._act(lambda: self._compose.run("up", "--detach", "--no-deps", service))

    async def restart(self, service: str, by: str, stop_s: int = STOP_S) -> None:
        self.deaths.expect_stop(service, by)
        container = await self._id(service)
        await self._act(lambda: self._api.restart(container, stop_s))

    async def unpause(self, service: str) -> None:
        container = await self._id(service)
        await self._act(lambda: self._api.unpause(container))

    def allow(self, service: str) -> None:
        """A stop by hand is over."""
        self._store.save(_key(service), {"stopped_by_hand": False})

    async def start_by_hand(self, service: str) -> None:
        self.allow(service)
        await self.bring_up(service)

    async def stop_by_hand(self, service: str, by: str) -> None:
        """Stopped stays stopped: passes leave it alone, and so does Docker's restart policy."""
        self._store.save(_key(service), {"stopped_by_hand": True})
        self.deaths.expect_stop(service, by)
        container = await self._id(service)
        await self._act(lambda: self._api.stop(container, STOP_S))

    def stopped_by_hand(self, service: str) -> bool:
        return bool((self._store.load(_key(service)) or {}).get("stopped_by_hand"))

    def _row(self, service: str, inspect: dict[str, Any] | None) -> ServiceStatus:
        if inspect is None:
            return ServiceStatus(State.STOPPED, detail="it has no container")
        told = self.deaths.told(inspect)
        row = container_status.row(
            inspect, time.time(), self._told(inspect, told), lasting=bool(told and told.lasting)
        )
        if row.state is State.STOPPED and self.stopped_by_hand(service):
            return replace(row, detail="stopped by hand")
        return row

    def _told(self, inspect: dict[str, Any], told: ExplainedDeath | None) -> str:
        if told:
            at = time.strftime("%H:%M", time.localtime(told.death.at))
            return f"{at}: {told.sentence}"
        return "" if self.deaths.is_coming(inspect) else container_status.last_words(inspect)

    async def _act(self, action: Callable[[], Awaitable[None]]) -> None:
        try:
            await action()
        finally:
            self._forget()

    async def _id(self, service: str) -> str:
        found = (await self._inspected()).get(service)
        if found is None:
            raise DockerUnavailable(f"{service} has no container: `vestal recover --once` makes one.")
        return str(found["Id"])

    async def _inspected(self, fresh: bool = False) -> dict[str, dict[str, Any]]:
        asked, found = self._cache
        now = time.monotonic()
        if fresh or now - asked > FRESH_S:
            listed = await self._api.containers(self._compose.project)
            found = {container_status.service_of(entry): entry for entry in listed}
            self._cache = (now, found)  # as old as the question, not as the answer
        return found

    def _forget(self) -> None:
        self._cache = (0.0, {})


def _key(service: str) -> str:
    return f"container:{service}"
