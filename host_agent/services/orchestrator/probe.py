"""The agent's own probe of the orchestrator in its container, through its published port."""

import aiohttp

from host_agent.services import http_probe
from host_agent.services.http_probe import NoAnswer


class OrchestratorProbe:
    """Sends GET /health. The port is this machine's."""

    def __init__(self, session: aiohttp.ClientSession, port: int, timeout_s: float = 3.0) -> None:
        self._session, self._timeout_s = session, timeout_s
        self._url = f"http://127.0.0.1:{port}/health"

    async def answers(self) -> bool:
        """Return whether any answer came, whatever it says: a restart would not heal unhealthy models."""
        try:
            await http_probe.get(self._session, self._url, self._timeout_s)
        except NoAnswer:
            return False
        return True
