"""The agent's own probe of the orchestrator in its container, through its published port."""

import aiohttp

from host_agent.services import http_probe
from host_agent.services.http_probe import NoAnswer
from vestal.supervision import ProbeResult


class OrchestratorProbe:
    """Probes the orchestrator by GET /health. `port` is the port of this machine at which its container is
    published.
    """

    def __init__(self, session: aiohttp.ClientSession, port: int, timeout_s: float = 3.0) -> None:
        self._session, self._timeout_s = session, timeout_s
        self._url = f"http://127.0.0.1:{port}/health"

    async def answers(self, main_pid: int) -> ProbeResult:
        """Return a good result if the orchestrator gives any answer, and a failed one if it gives none. The
        answer's content does not count: it may report unhealthy models, which a restart would not heal.

        `main_pid`, the PID of the container's main process, is not needed for this probe.
        """
        try:
            await http_probe.get(self._session, self._url, self._timeout_s)
        except NoAnswer as error:
            return ProbeResult(False, f"{self._url}: {error}", answered=False)
        return ProbeResult(True)
