"""Ollama: watched. It is asked what a client would ask, so that an answer means something."""

import aiohttp

from host_agent.config.model import OllamaSection
from host_agent.services import http_probe
from host_agent.services.docker_endpoint import find_command
from host_agent.services.http_probe import NoAnswer
from host_agent.services.row import Row
from supervision import State

INSTALLED_AT = ("/Applications/Ollama.app/Contents/Resources",)
OK = 200


class OllamaService:
    """What stands at `ollama.base_url`."""

    def __init__(self, settings: OllamaSection, session: aiohttp.ClientSession) -> None:
        self._settings, self._session = settings, session
        self._url = settings.base_url.rstrip("/")
        self._failures = 0

    async def row(self) -> Row:
        """`absent` is not a fault: nothing is installed, or Ollama is switched off in the configuration."""
        if self._settings.manage == "off":
            return Row(State.ABSENT, detail="switched off (ollama.manage)", expected=False)
        try:
            row = await self._ask()
            self._failures = 0
        except NoAnswer as error:
            row = self._silent(str(error))
        return row

    async def _ask(self) -> Row:
        version = await http_probe.get(self._session, f"{self._url}/api/version")
        tags = await http_probe.get(self._session, f"{self._url}/api/tags")
        names = tags.fields.get("models")
        if version.status != OK or tags.status != OK or not isinstance(names, list):
            self._failures += 1
            detail = f"{self._url} answered {version.status} and {tags.status}: restart Ollama"
            return Row(State.DEGRADED, health_check_failures=self._failures, detail=detail)
        found = {"version": str(version.fields.get("version", "?")), "models": len(names)}
        detail = "" if names else "it answers, but has no models (does it run as another user?)"
        return Row(State.READY, detail=detail, extra=found)

    def _silent(self, why: str) -> Row:
        if not installed():
            return Row(State.ABSENT, detail="not installed", expected=False)
        self._failures += 1
        remedy = "start it with `ollama serve`, or set VESTAL_OLLAMA__MANAGE=off"
        detail = f"installed but not answering at {self._url} ({why}); {remedy}"
        return Row(State.STOPPED, health_check_failures=self._failures, detail=detail)


def installed() -> bool:
    """Whether this machine has the `ollama` program (`ollama-mcp` is not it)."""
    return find_command("ollama", extra=INSTALLED_AT) is not None
