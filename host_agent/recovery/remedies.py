"""The remedies that a recovery pass has. `issues` chooses one, `apply_remedies` carries it out.

The text of a remedy completes "would …" and "tried to …" in the report of a pass. Pure.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class TerminateOldServer:
    """Terminate an earlier server of this home that holds the service's port: SIGTERM, then SIGKILL."""

    service: str
    pid: int

    def __str__(self) -> str:
        return f"end our old process (PID {self.pid})"


@dataclass(frozen=True)
class TerminateOrphan:
    """Terminate a runner of Ollama that outlived its server: SIGTERM, then SIGKILL."""

    service: str
    pid: int

    def __str__(self) -> str:
        return f"end the runner left behind (PID {self.pid})"


@dataclass(frozen=True)
class StartChild:
    """Have the agent's supervisor start its child `service`."""

    service: str

    def __str__(self) -> str:
        return "start it"


@dataclass(frozen=True)
class ReplaceHungChild:
    """Terminate a child that runs and does not answer; its supervisor then starts another."""

    service: str
    pid: int

    def __str__(self) -> str:
        return f"end the hung process (PID {self.pid}) and start another"


@dataclass(frozen=True)
class ControlThroughOwner:
    """Start or restart a service through its owner, such as Homebrew, as `plan` describes."""

    service: str
    action: str
    plan: str

    def __str__(self) -> str:
        return f"{self.action} it through its owner: {self.plan}"


@dataclass(frozen=True)
class BringUpContainer:
    """Create the container if it does not exist, and start it."""

    service: str

    def __str__(self) -> str:
        return "bring its container up"


@dataclass(frozen=True)
class RestartContainer:
    """Restart a container of `service`, or start it if it has ended. If it is `hung`, it cannot handle
    SIGTERM, so SIGKILL follows sooner than in other restarts. `container` is the container's identifier, ""
    if the service has only one.
    """

    service: str
    hung: bool = False
    container: str = ""

    def __str__(self) -> str:
        return "restart its container"


@dataclass(frozen=True)
class UnpauseContainer:
    """Resume a paused container of `service`. `container` is its identifier, "" if the service has only
    one.
    """

    service: str
    container: str = ""

    def __str__(self) -> str:
        return "unpause its container"


Remedy = (
    TerminateOldServer
    | TerminateOrphan
    | StartChild
    | ReplaceHungChild
    | ControlThroughOwner
    | BringUpContainer
    | RestartContainer
    | UnpauseContainer
)
