"""Talks to the orchestrator of this home over its port on loopback, with the token."""

import http.client
import json
from collections.abc import Iterator
from typing import Any

from host_agent.errors import OrchestratorRefused, OrchestratorUnreachable
from vestal.config import Config, read_token

TIMEOUT_S = 60.0  # its stream says something every 15 s


class OrchestratorClient:
    """One call is one connection. OrchestratorUnreachable, or OrchestratorRefused with the reason it gave."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._port = config.orchestrator.port

    def get(self, path: str) -> dict[str, Any]:
        return self._call("GET", path, None)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._call("POST", path, body)

    def delete(self, path: str) -> dict[str, Any]:
        return self._call("DELETE", path, None)

    def events(self, path: str) -> Iterator[dict[str, Any]]:
        """What the SSE stream at `path` tells, until it ends; OrchestratorUnreachable where it breaks off."""
        connection = self._connection()
        try:
            reply = self._sent(connection, "GET", path, None)
            for line in reply:
                if line.startswith(b"data:"):
                    yield json.loads(line[5:])
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._unreachable(error) from error
        finally:
            connection.close()

    def _call(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        connection = self._connection()
        try:
            return _object(self._sent(connection, method, path, body).read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._unreachable(error) from error
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT_S)

    def _sent(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: dict[str, Any] | None
    ) -> http.client.HTTPResponse:
        headers = {
            "Content-Type": "application/json",
            "Authorization": f"Bearer {read_token(self._config.home)}",
        }
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        reply = connection.getresponse()
        if reply.status >= http.client.BAD_REQUEST:
            said = _object(reply.read()).get("error")
            message = said.get("message") if isinstance(said, dict) else None
            raise OrchestratorRefused(f"The orchestrator refused: {message or f'it answered {reply.status}'}")
        return reply

    def _unreachable(self, error: Exception) -> OrchestratorUnreachable:
        reason = f"No orchestrator answers on port {self._port} ({error or type(error).__name__})"
        return OrchestratorUnreachable(f"{reason}: `vestal status` tells why, `vestal up` starts it.")


def _object(raw: bytes) -> dict[str, Any]:
    found = json.loads(raw or b"{}")
    return found if isinstance(found, dict) else {}
