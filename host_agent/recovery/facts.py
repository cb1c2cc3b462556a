"""What a pass has seen, and what it may do. Frozen; no I/O."""

from dataclasses import dataclass
from enum import StrEnum

from vestal.platform.memory_headroom import Headroom
from vestal.supervision import State


class Kind(StrEnum):
    """`owned`: somebody else looks after it: it is started and restarted through its owner."""

    CHILD = "child"
    CONTAINER = "container"
    OWNED = "owned"
    WATCHED = "watched"


@dataclass(frozen=True)
class ServiceFacts:
    """One service. `answers` is this pass's own question to it: None where it was not asked. `restarts_left`
    counts restarts of what runs and is not well, within the hour. `way`: how its owner starts or restarts it;
    `refusal`: why that is not for us to do, and who can."""

    name: str
    kind: Kind
    state: State
    detail: str = ""
    well: bool = False
    answers: bool | None = None
    stopped_by_hand: bool = False
    pid: int | None = None
    paused: bool = False
    restarts_left: int = 5
    way: str = ""
    refusal: str = ""


@dataclass(frozen=True)
class OrphanFacts:
    """A process that a dead server of `service` left behind. `mine`: it may be ended, without root."""

    service: str
    pid: int
    rss_bytes: int = 0
    mine: bool = True


@dataclass(frozen=True)
class PortFacts:
    """A port of a service of ours that is down, held by another process."""

    service: str
    port: int
    pid: int | None
    sentence: str
    is_old_of_ours: bool = False


@dataclass(frozen=True)
class Facts:
    """Everything, in the order of the pass. Fractions are of the machine's memory."""

    services: tuple[ServiceFacts, ...]
    ports: tuple[PortFacts, ...] = ()
    headroom: Headroom = Headroom()
    engine_answers: bool = True
    orphans: tuple[OrphanFacts, ...] = ()

    @property
    def healthy(self) -> bool:
        return all(service.well for service in self.services)


@dataclass(frozen=True)
class EndProcess:
    """An old server of ours holds a port: SIGTERM first."""

    service: str
    pid: int

    def __str__(self) -> str:
        return f"end our old process (PID {self.pid})"


@dataclass(frozen=True)
class StartChild:
    service: str

    def __str__(self) -> str:
        return "start it"


@dataclass(frozen=True)
class ReplaceHung:
    """It runs and does not answer: SIGTERM, then SIGKILL; its supervisor starts another."""

    service: str
    pid: int

    def __str__(self) -> str:
        return f"end the hung process (PID {self.pid}) and start another"


@dataclass(frozen=True)
class ThroughOwner:
    """`start` or `restart` what somebody else looks after, the owner's way."""

    service: str
    action: str
    way: str

    def __str__(self) -> str:
        return f"{self.action} it through its owner: {self.way}"


@dataclass(frozen=True)
class EndOrphan:
    """A runner whose server is gone: SIGTERM first."""

    service: str
    pid: int

    def __str__(self) -> str:
        return f"end the runner left behind (PID {self.pid})"


@dataclass(frozen=True)
class BringUp:
    service: str

    def __str__(self) -> str:
        return "bring its container up"


@dataclass(frozen=True)
class RestartContainer:
    """`hung`: it will not hear SIGTERM, so SIGKILL follows soon."""

    service: str
    hung: bool = False

    def __str__(self) -> str:
        return "restart its container"


@dataclass(frozen=True)
class Unpause:
    service: str

    def __str__(self) -> str:
        return "unpause its container"


Remedy = (
    EndProcess | StartChild | ReplaceHung | ThroughOwner | EndOrphan | BringUp | RestartContainer | Unpause
)


@dataclass(frozen=True)
class Issue:
    """Something that is not as it should be. With a remedy it is acted on; `comes_back` means wait and look
    again; otherwise `left` says why nothing is done and what a person can do. `event` is the
    journal's name for what a person must hear of."""

    service: str
    found: str
    remedy: Remedy | None = None
    left: str = ""
    comes_back: bool = False
    event: str = ""
