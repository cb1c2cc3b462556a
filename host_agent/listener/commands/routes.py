"""The routes that run a command for their answer: GET /doctor and GET /clients."""

from __future__ import annotations

import sys

from aiohttp import web

from host_agent.listener.commands.doctor_actions import action_for
from host_agent.listener.commands.json_command import JsonCommand
from host_agent.services import NAMES

DOCTOR = (sys.executable, "-m", "host_agent.cli.main", "doctor", "--json")
CLIENTS = (sys.executable, "-m", "host_agent.cli.launch.clients")
DOCTOR_WITHIN_S = 60.0  # the slowest diagnosis of the doctor has a limit of 40 s
CLIENTS_WITHIN_S = 20.0


class CommandRoutes:
    """Handles GET /doctor and GET /clients, each of which runs a command and responds with the JSON that it
    prints.

    `doctor` and `clients` are the command lines. If a command prints no JSON object, the response has status
    502.
    """

    def __init__(self, doctor: tuple[str, ...] = DOCTOR, clients: tuple[str, ...] = CLIENTS) -> None:
        self._doctor = JsonCommand(*doctor, timeout_s=DOCTOR_WITHIN_S)
        self._clients = JsonCommand(*clients, timeout_s=CLIENTS_WITHIN_S)

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/doctor", self.doctor), web.get("/clients", self.clients)]

    async def doctor(self, request: web.Request) -> web.Response:
        """Return the findings of `vestal doctor`. The `action` of each is a safe HTTP request that repairs
        what was found, or null.
        """
        answer = await self._doctor.result()
        findings = [
            finding | {"action": action_for(finding, NAMES)} for finding in answer.get("findings", ())
        ]
        return web.json_response({"findings": findings, "took_s": answer["took_s"]})

    async def clients(self, request: web.Request) -> web.Response:
        """Return the shell lines that start each known client program with a model of this machine."""
        answer = await self._clients.result()
        del answer["took_s"]
        return web.json_response(answer)
