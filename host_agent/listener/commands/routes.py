"""The routes whose answer a command finds out: the doctor's findings, and how programs are pointed here."""

from __future__ import annotations

import sys

from aiohttp import web

from host_agent.listener.commands.doctor_actions import action_for
from host_agent.listener.commands.json_command import JsonCommand
from host_agent.services import NAMES

DOCTOR = (sys.executable, "-m", "host_agent.cli.main", "doctor", "--json")
CLIENTS = (sys.executable, "-m", "host_agent.cli.launch.clients")
DOCTOR_WITHIN_S = 60.0  # its slowest diagnosis is given up after 40 s
CLIENTS_WITHIN_S = 20.0


class CommandRoutes:
    """One method for each command."""

    def __init__(self, doctor: tuple[str, ...] = DOCTOR, clients: tuple[str, ...] = CLIENTS) -> None:
        self._doctor = JsonCommand(*doctor, timeout_s=DOCTOR_WITHIN_S)
        self._clients = JsonCommand(*clients, timeout_s=CLIENTS_WITHIN_S)

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/doctor", self.doctor), web.get("/clients", self.clients)]

    async def doctor(self, request: web.Request) -> web.Response:
        """Return the findings of `vestal doctor`, each with the request that mends it, if one is safe."""
        answer = await self._doctor.result()
        findings = [
            finding | {"action": action_for(finding, NAMES)} for finding in answer.get("findings", ())
        ]
        return web.json_response({"findings": findings, "took_s": answer["took_s"]})

    async def clients(self, request: web.Request) -> web.Response:
        """Return for each known program the lines for a shell that start it with a model of this machine."""
        answer = await self._clients.result()
        del answer["took_s"]
        return web.json_response(answer)
