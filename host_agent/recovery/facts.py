"""The facts that the checks of a recovery pass find, and from which `issues` decides. Pure."""

from dataclasses import dataclass
from enum import StrEnum

from vestal.platform.memory_headroom import Headroom
from vestal.supervision import State


class ControlledBy(StrEnum):
    """The program or person that starts and restarts a service, and through which a remedy must act."""

    SUPERVISOR = "supervisor"  # a child of the agent
    DOCKER = "docker"  # a container
    OWNER = "owner"  # another program or person, such as Homebrew or systemd
    NOBODY = "nobody"  # the service is only watched


@dataclass(frozen=True)
class ServiceFacts:
    """The state of one service, as the checks of a recovery pass found it.

    `answers` says whether the service answered the probe of this pass. It is None if no probe was sent, or if
    the service gave no answer but works. `evidence` says how a service without an answer was judged.
    `healthy` is True if the service's status is healthy and the probe did not fail. `paused` is True if the
    service's container is paused. `restarts_left` is how many more times recovery passes may restart the
    service: the limit per hour, less the restarts in the last hour. `stopped_by_hand` is True if a person had
    the agent stop the service and nobody has started it since; the container of such a service may not have
    ended yet.

    `container` is "" unless the service may have several containers, as the worker may. For such a service,
    there is one ServiceFacts for each container, with the container's identifier in `container` and with a
    restart limit of its own.

    `controlled_by` says through whom the service is started and restarted: the agent's supervisor, Docker,
    the service's owner (another program or person, such as Homebrew or systemd), or nobody. The last two
    fields are for a service with an owner: `owner_plan` says how to start it, or to restart it if it runs.
    `refusal` says why the agent may not carry out this plan, and who can; it is "" if the agent may.
    """

    name: str
    controlled_by: ControlledBy
    state: State
    detail: str = ""
    healthy: bool = False
    answers: bool | None = None
    evidence: str = ""
    stopped_by_hand: bool = False
    pid: int | None = None
    paused: bool = False
    restarts_left: int = 5
    container: str = ""
    owner_plan: str = ""
    refusal: str = ""

    @property
    def works(self) -> bool:
        """Return whether the service is busy: it has not answered the probe, but was seen to work."""
        return self.answers is None and bool(self.evidence)


@dataclass(frozen=True)
class OrphanFacts:
    """A process that still runs although the server of `service` that started it has ended.

    `may_terminate` is True if the agent may terminate the process, and can do so without root.
    """

    service: str
    pid: int
    rss_bytes: int = 0
    may_terminate: bool = True


@dataclass(frozen=True)
class PortFacts:
    """A process that holds the port of a service that is down; `sentence` names process and port.

    `held_by_old_server` is True if the process is a Vestal server of the same home that the agent does not
    supervise, such as the gateway of an earlier agent.
    """

    service: str
    pid: int | None
    sentence: str
    held_by_old_server: bool = False


@dataclass(frozen=True)
class Facts:
    """All facts that one check of the whole machine found. A recovery pass makes several such checks.

    `services` are in the order in which the pass handles them. `ports` are the processes that hold the port
    of a service that is down. `headroom` says whether there is enough memory to start a model server.
    `orphans` are the processes that still run although the server that started them has ended.
    """

    services: tuple[ServiceFacts, ...]
    ports: tuple[PortFacts, ...] = ()
    headroom: Headroom = Headroom()
    docker_answers: bool = True
    orphans: tuple[OrphanFacts, ...] = ()

    @property
    def healthy(self) -> bool:
        """Return whether every service is healthy."""
        return all(service.healthy for service in self.services)
