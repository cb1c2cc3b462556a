"""HTTP client for the orchestrator of this Vestal home, on loopback. Each request carries the home's access
token, which is in a file of the home.
"""

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from host_agent.blocking_http import json_object, open_response
from host_agent.errors import OrchestratorRefused, OrchestratorUnreachable
from vestal.config import Config, read_token

TIMEOUT_S = 60.0  # for each read; the orchestrator sends something on a stream of events every 15 s


DATABASE_UNAVAILABLE = "database_unavailable"


class OrchestratorUnavailable(OrchestratorUnreachable):
    """The orchestrator answered that it cannot use its database for now. Its message says why."""

    code = "orchestrator_unavailable"


class OrchestratorClient:
    """Calls the orchestrator's HTTP API, and opens a new connection for each call.

    Every call raises OrchestratorUnreachable if no orchestrator answers, OrchestratorUnavailable if it
    answers that it cannot use its database, and OrchestratorRefused, with the orchestrator's message, if it
    answers with another error.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._port = config.orchestrator.port

    def get(self, path: str) -> dict[str, Any]:
        return self._call("GET", path)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._call("POST", path, body)

    def delete(self, path: str) -> dict[str, Any]:
        return self._call("DELETE", path)

    def events(self, path: str) -> Iterator[dict[str, Any]]:
        """Yield the data of each server-sent event at `path`, parsed from JSON, until the stream ends.

        If the connection is lost, the stream may end without an error, or this method raises
        OrchestratorUnreachable. So a caller must see from the events whether all have arrived.
        """
        with self._open("GET", path) as response:
            for line in response:
                if line.startswith(b"data:"):
                    yield json.loads(line[5:])

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        with self._open(method, path, body) as response:
            return json_object(response.read())

    @contextmanager
    def _open(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        url, token = f"http://127.0.0.1:{self._port}{path}", read_token(self._config.home)
        try:
            with open_response(method, url, body=body, token=token, timeout_s=TIMEOUT_S) as response:
                if response.status >= http.client.BAD_REQUEST:
                    raise _error(response)
                yield response
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = f"No orchestrator answers on port {self._port} ({error or type(error).__name__})"
            message = f"{reason}: `vestal status` says why, `vestal up` starts it."
            raise OrchestratorUnreachable(message) from error


def _error(response: http.client.HTTPResponse) -> OrchestratorUnavailable | OrchestratorRefused:
    """Return the error that the orchestrator's answer reports, with the orchestrator's reason."""
    error = json_object(response.read()).get("error")
    error = error if isinstance(error, dict) else {}
    reason = error.get("message") or f"it answered {response.status}"
    if error.get("code") == DATABASE_UNAVAILABLE:
        return OrchestratorUnavailable(f"The orchestrator cannot do this for now: {reason}")
    return OrchestratorRefused(f"The orchestrator refused: {reason}")
