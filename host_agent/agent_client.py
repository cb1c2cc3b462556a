"""HTTP client for the agent of one Vestal home folder. It connects on loopback, and sends the token that is
stored in the home folder.
"""

import http.client
import time
from collections.abc import Callable
from typing import Any

from host_agent.agent import agent_state, single_instance
from host_agent.agent.agent_state import AgentState, SilentAgent
from host_agent.blocking_http import json_object, open_response
from host_agent.errors import AgentUnreachable, RequestRefused
from vestal.config import Config, ConfigError, read_token

TIMEOUT_S = 15.0
HEALTH_TIMEOUT_S = 2.0


class AgentClient:
    """Calls the agent's HTTP API, with one connection for each call."""

    def __init__(self, config: Config, port: int | None = None) -> None:
        """Take the configuration of the agent to call. `port` replaces the port in the settings."""
        self._config = config
        self._port = port or config.agent.port

    def answers(self) -> bool:
        """Return True if an agent answers `GET /health`. It may be the agent of another home, perhaps another
        user's, if this home's agent does not run.
        """
        try:
            return self._exchange("GET", "/health", None, HEALTH_TIMEOUT_S)[0] == http.client.OK
        except (OSError, http.client.HTTPException, ValueError):
            return False

    def own_agent_answers(self) -> bool:
        """Return True if the agent of this home runs, answers, and accepts this home's token."""
        if single_instance.running(self._config.home) is None or not self.answers():
            return False
        try:
            return self._exchange("GET", "/upgrade", None, TIMEOUT_S)[0] != http.client.UNAUTHORIZED
        except (OSError, http.client.HTTPException, ValueError, ConfigError):
            return False

    def why_silent(self) -> SilentAgent:
        """Return why the agent of this home does not answer. A possible reason is that it does not run
        because the agent of another home has its port.
        """
        silent = agent_state.of_silent_agent(self._config)
        if silent.state is AgentState.NOT_RUNNING and self.answers():
            return agent_state.of_port_taken(self._config)
        return silent

    def get(self, path: str) -> dict[str, Any]:
        """Return the JSON body of the agent's answer to `GET path`. Raises AgentUnreachable if no agent of
        this home answers, or RequestRefused, with the agent's message, if it answers with an error status.
        """
        return self._call("GET", path, None)

    def post(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send `body` as JSON to `path` and return the JSON body of the answer. Raises the same errors as
        `get`.
        """
        return self._call("POST", path, body or {})

    def wait_until(self, condition: Callable[[], bool], timeout_s: float, poll_s: float = 0.1) -> bool:
        """Call `condition` every `poll_s` seconds. Return True once it is true, or False after `timeout_s`
        seconds.
        """
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(poll_s)
        return True

    def _call(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        try:
            status, answer = self._exchange(method, path, body, TIMEOUT_S)
        except (OSError, http.client.HTTPException, ValueError) as error:
            silent = agent_state.of_silent_agent(self._config)
            raise AgentUnreachable(f"{silent} ({error or type(error).__name__})") from error
        if status == http.client.UNAUTHORIZED and single_instance.running(self._config.home) is None:
            raise AgentUnreachable(str(self.why_silent()))  # the agent of another home has refused the token
        if status >= http.client.BAD_REQUEST:
            message = (answer.get("error") or {}).get("message") or f"it answered {status}"
            raise RequestRefused(f"The agent refused: {message}")
        return answer

    def _exchange(
        self, method: str, path: str, body: dict[str, Any] | None, timeout_s: float
    ) -> tuple[int, dict[str, Any]]:
        """Send one request. Return the HTTP status and the JSON body of the answer, or an empty dict if the
        body is no JSON object. The token is sent with every path except `/health`.

        Raises OSError or http.client.HTTPException if the agent does not answer within `timeout_s` seconds or
        the exchange fails, ValueError if the body is not JSON, and ConfigError if there is no token.
        """
        url = f"http://127.0.0.1:{self._port}{path}"
        token = "" if path == "/health" else read_token(self._config.home)
        with open_response(method, url, body=body, token=token, timeout_s=timeout_s) as response:
            return response.status, json_object(response.read())
