"""The agent's own probe of the orchestrator in its container, through its published port."""

import aiohttp

from host_agent.services import http_probe
from host_agent.services.http_probe import NoAnswer
from vestal.supervision import ProbeResult


class OrchestratorProbe:
    """Sends GET /health. The port is this machine's."""

    def __init__(self, session: aiohttp.ClientSession, port: int, timeout_s: float = 3.0) -> None:
        self._session, self._timeout_s = session, timeout_s
        self._url = f"http://127.0.0.1:{port}/health"

    async def answers(self, main_pid: int) -> ProbeResult:
        """Return a good result for any answer, whatever it says: a restart would not heal unhealthy models.

        `main_pid` is that of the container's main process.
        """
        try:
            await http_probe.get(self._session, self._url, self._timeout_s)
        except NoAnswer as error:
            return ProbeResult(False, f"{self._url}: {error}", answered=False)
        return ProbeResult(True)
