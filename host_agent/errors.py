"""The errors of the host agent and of the command `vestal`.

HostAgentError
├── AlreadyRunning      another agent serves this home
├── PortBusy            another process listens on one of Vestal's ports (the message names it)
├── AgentUnreachable    no agent answers, or it did not start
├── RequestRefused      the agent answered with an error
├── OrchestratorUnreachable   no orchestrator answers
├── OrchestratorRefused       the orchestrator answered with an error, or the request is invalid
├── GatewayUnreachable   no MLX server answers
├── NoFittingModel       no installed model meets the needs of a program, or has the given name
├── UnknownProgram       `vestal launch` knows no program of that name
├── UnknownService      no service has that name (the message lists the names)
├── InvalidOption       an option of a command has an invalid value
├── UpgradeRefused      the installed version cannot start, so the old processes keep running
├── NotPossible         Vestal may not do this, because it only watches the service or another program owns it
├── DockerUnavailable   the Docker engine does not answer
├── ComposeFailed       `docker compose` failed (the message has its last lines)
└── NotInstalled        launchd or systemd did not accept the jobs (the message has the reason)

Each has a `code`, a message of one sentence with the remedy, `retryable`, and the exit code with which a
command ends (sysexits.h). A subclass that only one module raises, such as NotDelivered, is in that module.
"""

from typing import ClassVar


class HostAgentError(Exception):
    """The base class of the host agent's errors. `str()` gives one sentence for a person."""

    code: ClassVar[str] = "host_agent_error"
    retryable: ClassVar[bool] = False
    exit_code: int = 1


class AlreadyRunning(HostAgentError):
    code = "already_running"
    exit_code = 75


class PortBusy(HostAgentError):
    code = "port_busy"
    retryable = True
    exit_code = 75


class AgentUnreachable(HostAgentError):
    code = "agent_unreachable"
    retryable = True
    exit_code = 69


class RequestRefused(HostAgentError):
    code = "request_refused"
    exit_code = 64


class OrchestratorUnreachable(HostAgentError):
    code = "orchestrator_unreachable"
    retryable = True
    exit_code = 69


class OrchestratorRefused(HostAgentError):
    code = "orchestrator_refused"
    exit_code = 64


class GatewayUnreachable(HostAgentError):
    code = "mlx_server_unreachable"
    retryable = True
    exit_code = 69


class NoFittingModel(HostAgentError):
    code = "no_fitting_model"
    exit_code = 69


class UnknownProgram(HostAgentError):
    code = "unknown_program"
    exit_code = 64


class UnknownService(HostAgentError):
    code = "unknown_service"
    exit_code = 64


class InvalidOption(HostAgentError):
    code = "invalid_option"
    exit_code = 64


class UpgradeRefused(HostAgentError):
    code = "upgrade_refused"


class NotPossible(HostAgentError):
    code = "not_possible"
    exit_code = 64


class DockerUnavailable(HostAgentError):
    code = "docker_unavailable"
    retryable = True
    exit_code = 69


class ComposeFailed(HostAgentError):
    code = "compose_failed"
    retryable = True


class NotInstalled(HostAgentError):
    code = "not_installed"
    exit_code = 69
