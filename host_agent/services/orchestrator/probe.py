"""The agent's own question to the orchestrator in its container, over the port that is published here."""

import aiohttp

from host_agent.services import http_probe
from host_agent.services.http_probe import NoAnswer


class OrchestratorProbe:
    """Any answer will do: what it says of its models is not for the container to be restarted for."""

    def __init__(self, session: aiohttp.ClientSession, port: int, timeout_s: float = 3.0) -> None:
        self._session, self._timeout_s = session, timeout_s
        self._url = f"http://127.0.0.1:{port}/health"

    async def answers(self) -> bool:
        try:
            await http_probe.get(self._session, self._url, self._timeout_s)
        except NoAnswer:
            return False
        return True
