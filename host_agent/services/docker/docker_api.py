"""The few calls of the Docker engine's API that the agent makes, through aiodocker.

aiodocker speaks the HTTP and agrees with the engine on a version of the API. This module adds the engine's
address (`docker_endpoint`), a deadline for each call, and one exception for all that can go wrong.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

import aiodocker
import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from host_agent.errors import DockerUnavailable
from host_agent.services.docker.docker_endpoint import find_endpoint
from host_agent.services.http_probe import why_not_connected

TIMEOUT_S = 5.0
ACTION_TIMEOUT_S = 60.0
REASON_CHARACTERS = 200
NO_CONNECTION = 900  # aiodocker's own status if no HTTP answer came
EVENTS = ["oom", "die", "kill", "start", "health_status"]
# What aiodocker raises; and what aiodocker and this module raise on JSON that is not the Docker engine's.
FAILURES = (aiodocker.DockerError, aiohttp.ClientError, HttpProcessingError, TimeoutError, OSError)
WRONG_SHAPE = (ValueError, LookupError, TypeError, AttributeError, RecursionError)


class DockerApi:
    """Asks the Docker engine of this machine.

    Every method raises DockerUnavailable, with a sentence for people, when there is no engine, or it does not
    answer in time, refuses, or gives an answer that does not fit its API.
    """

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._client: aiodocker.Docker | None = None
        self._url = ""

    async def version(self) -> str:
        """Return the engine's version, "?" if its answer has none. An answer shows that the engine works.
        Raises DockerUnavailable if there is no engine, or it does not answer in time, or refuses.
        """
        async with self._ask("report its version") as docker:
            return str((await docker.version()).get("Version", "?"))

    async def memory_bytes(self) -> int:
        """Return the memory, in bytes, that all containers share: this machine's, or that of Docker Desktop's
        virtual machine.
        """
        async with self._ask("describe itself") as docker:
            return int((await docker.system.info()).get("MemTotal") or 0)

    async def containers(self, project: str) -> list[dict[str, Any]]:
        """Return the `docker inspect` record of every container of a compose project, running or not. Raises
        DockerUnavailable also if the engine lists the containers and does not answer about one of them.
        """
        label = {"label": [f"com.docker.compose.project={project}"]}
        async with self._ask("list containers") as docker:
            identifiers = [found.id for found in await docker.containers.list(all=True, filters=label)]
        records = await asyncio.gather(*map(self._inspect, identifiers))
        return [record for record in records if record]

    async def has_image(self, name: str) -> bool:
        """Return whether the engine has an image of this name."""
        async with self._ask("list images") as docker:
            return bool(await docker.images.list(filters={"reference": [name]}))

    async def stop(self, container: str, grace_s: int) -> None:
        """Stop a container: SIGTERM, and SIGKILL after `grace_s` seconds."""
        async with self._ask("stop the container", ACTION_TIMEOUT_S) as docker:
            await docker.containers.container(container).stop(t=grace_s)

    async def restart(self, container: str, grace_s: int) -> None:
        """Stop a container with SIGTERM, and with SIGKILL after `grace_s` seconds, and start it again."""
        async with self._ask("restart the container", ACTION_TIMEOUT_S) as docker:
            await docker.containers.container(container).restart(t=grace_s)

    async def unpause(self, container: str) -> None:
        """Resume a paused container."""
        async with self._ask("unpause the container", ACTION_TIMEOUT_S) as docker:
            await docker.containers.container(container).unpause()

    async def top(self, container: str, ps_arguments: str) -> dict[str, Any]:
        """Return `Titles` and `Processes` of `ps` with these arguments, for the processes of a container."""
        async with self._ask("list the processes of the container") as docker:
            return dict(await docker.containers.container(container).top(ps_args=ps_arguments))

    async def events(self, project: str) -> AsyncIterator[dict[str, Any]]:
        """Yield the events of a project's containers as they happen, until the engine ends the stream."""
        label = [f"com.docker.compose.project={project}"]
        wanted = {"type": ["container"], "event": EVENTS, "label": label}
        try:
            # A client of its own: a client of aiodocker can follow one stream, and only once.
            async with _connect(_endpoint()) as docker:
                received = docker.events.subscribe(create_task=False)
                reading = asyncio.create_task(docker.events.run(filters=wanted))
                try:
                    while (event := await received.get()) is not None:
                        # aiodocker turns the engine's seconds into a local datetime.
                        yield event | {"time": event["time"].timestamp()}
                    await reading  # raises what broke the stream
                finally:
                    reading.cancel()
                    await asyncio.gather(reading, return_exceptions=True)
        except (*FAILURES, *WRONG_SHAPE) as error:
            raise DockerUnavailable(f"The Docker engine's events broke off ({_reason(error)}).") from error

    async def close(self) -> None:
        """Close the connections. A later call opens new ones."""
        if self._client:
            await self._client.close()
            self._client = None

    async def _inspect(self, container: str) -> dict[str, Any] | None:
        """Return a container's record, or None if the container was removed since it was listed."""
        async with self._ask("inspect the container") as docker:
            try:
                return await docker.containers.container(container).show()
            except aiodocker.DockerError as error:
                if error.status != HTTPStatus.NOT_FOUND:
                    raise
        return None

    @contextlib.asynccontextmanager
    async def _ask(self, request: str, timeout_s: float | None = None) -> AsyncIterator[aiodocker.Docker]:
        """Provide the client for one request, whose deadline is `timeout_s` or, by default, that of this
        object. Raise DockerUnavailable if there is no engine, or the request fails or is late. `request`
        names the request in the message, as in `stop the container`.
        """
        within_s = timeout_s or self._timeout_s
        docker = await self._connected()
        try:
            async with asyncio.timeout(within_s):
                yield docker
        except TimeoutError as error:
            raise DockerUnavailable(f"The Docker engine gave no answer within {within_s:g} s.") from error
        except (*FAILURES, *WRONG_SHAPE) as error:
            # Another engine may run by now, which refuses the version of the API that was agreed on before.
            docker.api_version = "auto"
            raise DockerUnavailable(_sentence(error, request)) from error

    async def _connected(self) -> aiodocker.Docker:
        url = _endpoint()
        if self._client is None or url != self._url:
            await self.close()
            self._client, self._url = _connect(url), url
        return self._client


def _endpoint() -> str:
    url = find_endpoint()
    if url is None:
        raise DockerUnavailable("No Docker engine was found on this machine.")
    return url


def _connect(url: str) -> aiodocker.Docker:
    """Return a client, not connected yet, for the engine at `url`. The client ends each request after
    ACTION_TIMEOUT_S; a shorter deadline is up to the caller. A stream of events has no deadline.
    """
    return aiodocker.Docker(url=url, timeout=aiohttp.ClientTimeout(total=ACTION_TIMEOUT_S))


def _sentence(error: Exception, request: str) -> str:
    if isinstance(error, aiodocker.DockerError) and error.status != NO_CONNECTION:
        return f"The Docker engine refused to {request}: {_reason(error) or f'status {error.status}'}."
    if isinstance(error, FAILURES):
        return f"The Docker engine does not answer ({_reason(error)})."
    return f"What answers at the Docker engine's address does not speak its API ({_reason(error)})."


def _reason(error: Exception) -> str:
    if not isinstance(error, aiodocker.DockerError):
        return str(error)[:REASON_CHARACTERS] or type(error).__name__
    cause = error.__context__  # without aiodocker's two sentences around it
    if isinstance(cause, aiohttp.ClientConnectorError):
        return why_not_connected(cause.os_error)
    if isinstance(cause, aiohttp.ClientError):
        return str(cause)
    return error.message.strip().rstrip(".")[:REASON_CHARACTERS]
