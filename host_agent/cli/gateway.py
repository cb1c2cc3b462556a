"""Send short requests to the MLX server of this installation, on loopback."""

from __future__ import annotations

import http.client
from typing import Any

from host_agent.blocking_http import json_object, open_response
from host_agent.errors import GatewayUnreachable
from host_agent.services import MLX_SERVER
from vestal.config import Config, Home
from vestal.platform.processes import vestal_processes
from vestal.supervision import read_pid_file

TIMEOUT_S = 10.0
GATEWAY_MODULE = "mlx_server.gateway"


class GatewayClient:
    """Calls the MLX server's HTTP API, and opens a new connection for each call.

    Every call except `is_of` raises GatewayUnreachable if no MLX server answers. The server may be that of
    another home, or another program with Ollama's API.
    """

    def __init__(self, config: Config) -> None:
        self.url = f"http://127.0.0.1:{config.mlx.port}"

    def is_of(self, home: Home) -> bool:
        """Return whether the program that answers is an MLX server of this home. Return False if none
        answers.
        """
        try:
            pid = self._exchange("GET", "/health")[1].get("pid")  # whichever status the answer has
        except GatewayUnreachable:
            return False
        supervised = read_pid_file(home.run / f"{MLX_SERVER}.json")
        if supervised is not None and supervised.pid == pid and supervised.alive():
            return True
        servers = vestal_processes.servers_of_home(home.root, home.default_root)
        return any(server == (pid, GATEWAY_MODULE) for server in servers)

    def get(self, path: str) -> dict[str, Any]:
        """Send GET for `path` and return the JSON body. Raises GatewayUnreachable also if the status is not
        200.
        """
        status, answer = self._exchange("GET", path)
        if status != http.client.OK:
            raise self.refused(status)
        return answer

    def health(self) -> dict[str, Any]:
        """Return the body of the response to GET /health. Its field `status` says whether requests would be
        served. If they would not, for example because the engine has failed, the HTTP status is 503, but the
        body has the same fields. Raises GatewayUnreachable for any other response.
        """
        status, answer = self._exchange("GET", "/health")
        if status == http.client.OK or (status == http.client.SERVICE_UNAVAILABLE and "status" in answer):
            return answer
        raise self.refused(status)

    def delete(self, path: str, body: dict[str, Any] | None = None) -> int:
        """Send DELETE for `path`, with `body` as JSON, and return the HTTP status of the response, which may
        be that of an error. Raises GatewayUnreachable also if the response's body is not JSON.
        """
        return self._exchange("DELETE", path, body)[0]

    def _exchange(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        try:
            with open_response(method, self.url + path, body=body, timeout_s=TIMEOUT_S) as response:
                return response.status, json_object(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self.unreachable(error) from error

    def refused(self, status: int) -> GatewayUnreachable:
        """Return the exception for an answer with an error. `status` is the HTTP status."""
        return GatewayUnreachable(
            f"The MLX server at {self.url} answers with status {status}: `vestal status` says why."
        )

    def unreachable(self, reason: object) -> GatewayUnreachable:
        """Return the exception for a missing answer. Its message has the cause `reason` and the remedy."""
        why = str(reason) or type(reason).__name__
        return GatewayUnreachable(
            f"No MLX server answers at {self.url} ({why}): `vestal status` says why, `vestal up` starts it."
        )
