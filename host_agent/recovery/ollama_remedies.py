"""The remedies for Ollama: restart the agent's own server as a child, and any other server through its
owner.
"""

from host_agent.errors import NotPossible
from host_agent.services import terminate
from host_agent.services.ollama import OllamaService


class OllamaRemedies:
    """Carries out the remedies for Ollama. `stop_s` is the time between SIGTERM and SIGKILL, in seconds."""

    def __init__(self, service: OllamaService, stop_s: float) -> None:
        self._service, self._stop_s = service, stop_s

    async def start_child(self, cause: str) -> None:
        """Start the agent's own server, as far as its breaker and backoff allow."""
        self._service.forget_failures()
        await self._service.controller.start(cause)

    async def replace_hung_child(self, pid: int) -> None:
        """Terminate the agent's own server if its PID is still `pid`. Its supervisor then starts another."""
        if self._service.controller.pid != pid:
            return
        await terminate.terminate_pid(pid, self._stop_s)
        self._service.forget_failures()

    async def control_through_owner(self, action: str, cause: str) -> None:
        """Start or restart Ollama, as `action` says, through its owner.

        Before a restart, the server is checked again. Raises NotPossible if it answers again.
        """
        if action == "restart" and (await self._service.check()).verdict.ok:
            raise NotPossible("it answers again, so it was left alone")
        await self._service.controller.control_through_owner(action, cause)
        self._service.forget_failures()

    async def terminate_orphan(self, pid: int) -> None:
        """Terminate a runner if it is still an orphan: the PID may belong to another process by now."""
        if any(runner.pid == pid for runner, _ in await self._service.orphans()):
            await terminate.terminate_pid(pid, self._stop_s)
