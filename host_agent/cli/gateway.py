"""Send short requests to the MLX server of this installation, on loopback."""

from __future__ import annotations

import http.client
from typing import Any

from host_agent.blocking_http import json_object, open_response
from host_agent.errors import GatewayUnreachable
from vestal.config import Config

TIMEOUT_S = 10.0


class GatewayClient:
    """Calls the MLX server's HTTP API, and opens a new connection for each call.

    Every call raises GatewayUnreachable if no MLX server answers.
    """

    def __init__(self, config: Config) -> None:
        self.url = f"http://127.0.0.1:{config.mlx.port}"

    def get(self, path: str) -> dict[str, Any]:
        """Send GET for `path` and return the JSON body. Raises GatewayUnreachable also if the status is not
        200.
        """
        status, answer = self._exchange("GET", path)
        if status != http.client.OK:
            raise self.unreachable(f"it answers {status}")
        return answer

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

    def unreachable(self, reason: object) -> GatewayUnreachable:
        """Return the exception for a missing answer. Its message has the cause `reason` and the remedy."""
        why = str(reason) or type(reason).__name__
        return GatewayUnreachable(
            f"No MLX server answers at {self.url} ({why}): `vestal status` says why, `vestal up` starts it."
        )
