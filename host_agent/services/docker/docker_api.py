"""The few calls of Docker's HTTP API that the agent needs, without a thread or another HTTP library.

The `docker` package would bring `requests` (some 15 MB in the agent) and a blocking thread for live events.
Paths as in https://docs.docker.com/reference/api/engine/.
"""

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

from host_agent.errors import DockerUnavailable
from host_agent.services.docker.docker_endpoint import Endpoint, find_endpoint

TIMEOUT_S = 5.0
ACTION_TIMEOUT_S = 60.0
ERRORS = (aiohttp.ClientError, TimeoutError, OSError, ValueError)


class DockerApi:
    """One engine. Every call raises DockerUnavailable where it does not answer as it should."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._endpoint: Endpoint | None = None

    async def version(self) -> str:
        """The engine's version: it answers."""
        return str((await self._call("GET", "/version")).get("Version", "?"))

    async def memory_bytes(self) -> int:
        """What the engine has for all its containers: the machine's, or that of Docker Desktop's own."""
        return int((await self._call("GET", "/info")).get("MemTotal") or 0)

    async def containers(self, project: str) -> list[dict[str, Any]]:
        """`docker inspect` of every container of a compose project, running or not."""
        filters = json.dumps({"label": [f"com.docker.compose.project={project}"]})
        listed = await self._call("GET", "/containers/json", params={"all": "1", "filters": filters})
        found = []
        for entry in listed:
            with contextlib.suppress(DockerUnavailable):  # it went in between
                found.append(await self._call("GET", f"/containers/{entry['Id']}/json"))
        return found

    async def has_image(self, name: str) -> bool:
        """Whether the engine has the image."""
        listed = await self._call(
            "GET", "/images/json", params={"filters": json.dumps({"reference": [name]})}
        )
        return bool(listed)

    async def act(self, container: str, action: str, **params: str) -> None:
        """`start`, `stop`, `restart` or `unpause`."""
        await self._call(
            "POST", f"/containers/{container}/{action}", params=params, timeout_s=ACTION_TIMEOUT_S
        )

    async def events(self, project: str) -> AsyncIterator[dict[str, Any]]:
        """The engine's events for the project's containers, live, until the engine goes."""
        wanted = {
            "type": ["container"],
            "event": ["oom", "die", "kill", "start", "health_status"],
            "label": [f"com.docker.compose.project={project}"],
        }
        forever = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT_S)
        try:
            session, base = await self._connected()
            params = {"filters": json.dumps(wanted)}
            async with session.get(base + "/events", params=params, timeout=forever) as reply:
                reply.raise_for_status()
                async for line in reply.content:
                    yield json.loads(line)
        except ERRORS as error:
            raise DockerUnavailable(f"The Docker engine's events broke off ({_reason(error)}).") from error

    async def close(self) -> None:
        if self._session:
            await self._session.close()
            self._session = None

    async def _call(
        self, method: str, path: str, *, params: dict[str, str] | None = None, timeout_s: float = TIMEOUT_S
    ) -> Any:
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        try:
            session, base = await self._connected()
            async with session.request(method, base + path, params=params, timeout=timeout) as reply:
                body = await reply.read()
        except ERRORS as error:
            raise DockerUnavailable(f"The Docker engine does not answer ({_reason(error)}).") from error
        if reply.status >= 400:
            raise DockerUnavailable(f"Docker refused {method} {path}: {_message(body) or reply.status}.")
        return json.loads(body) if body.strip() else {}

    async def _connected(self) -> tuple[aiohttp.ClientSession, str]:
        endpoint = find_endpoint()
        if endpoint is None:
            raise DockerUnavailable("No Docker engine was found on this machine.")
        if self._session is None or endpoint != self._endpoint:
            await self.close()
            connector = aiohttp.UnixConnector(endpoint.socket) if endpoint.socket else None
            self._session, self._endpoint = aiohttp.ClientSession(connector=connector), endpoint
        return self._session, endpoint.url or "http://docker"


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"]).strip().rstrip(".")
    except (ValueError, KeyError, TypeError):
        return ""
