"""The remedies for Ollama: restart the agent's own server as a child, and any other server through its
owner.
"""

from host_agent.errors import NotPossible
from host_agent.services import terminate
from host_agent.services.ollama import OllamaService

STOPPED_MEANWHILE = "a person has stopped it meanwhile, so it was left alone"


class OllamaRemedies:
    """Carries out the remedies for Ollama. `stop_s` is the time between SIGTERM and SIGKILL, in seconds."""

    def __init__(self, service: OllamaService, stop_s: float) -> None:
        self._service, self._stop_s = service, stop_s

    async def start_child(self, cause: str) -> None:
        """Start the agent's own server, because of `cause`. If its breaker is open or a backoff delay runs,
        the server starts only after that. Raises NotPossible if a person has stopped Ollama.
        """
        if self._service.controller.stopped_by_hand:
            raise NotPossible(STOPPED_MEANWHILE)
        self._service.forget_failures()
        await self._service.controller.start(cause)

    async def replace_hung_child(self, pid: int) -> None:
        """Terminate the agent's own server if its PID is still `pid`, and do nothing otherwise. Its
        supervisor then starts another server.
        """
        if self._service.controller.pid != pid:
            return
        await terminate.terminate_pid(pid, self._stop_s)
        self._service.forget_failures()

    async def control_through_owner(self, action: str, cause: str) -> None:
        """Start or restart Ollama, as `action` says, through its owner: the program that starts and restarts
        it, such as Homebrew. Without such a program, the agent starts its own server, in place of one that
        runs; `cause` is the reason to record for this start.

        Before a restart, check the server once more. Raises NotPossible if this check succeeds, if a person
        has stopped Ollama, if the agent may not control it, or if a command fails.
        """
        if action == "restart" and (await self._service.check()).verdict.ok:
            raise NotPossible("it answers again, so it was left alone")
        if self._service.controller.stopped_by_hand and not self._service.observation.owner.runs:
            raise NotPossible(STOPPED_MEANWHILE)
        await self._service.controller.control_through_owner(action, cause)
        self._service.forget_failures()

    async def terminate_orphan(self, pid: int) -> None:
        """Terminate the process `pid` if it is still a runner whose server has ended. Do nothing otherwise,
        because the PID may belong to another process by now.
        """
        if any(runner.pid == pid for runner, _ in await self._service.orphans()):
            await terminate.terminate_pid(pid, self._stop_s)
