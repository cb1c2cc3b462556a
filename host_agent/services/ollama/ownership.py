"""Who looks after the Ollama that runs, or is to run, here. Pure: evidence in, an owner out.

What somebody else looks after is not started twice and not fought: it is restarted through its owner.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from host_agent.service_manager.unit_lookup import Job
from host_agent.services.ollama.classify import is_menu_bar_app, is_server
from vestal.platform.processes.process_snapshot import ProcessSnapshot

SHELLS = ("bash", "zsh", "sh", "fish", "dash", "ksh", "tmux", "screen", "tcsh")
CONTAINER_PORTS = ("docker-proxy", "com.docker.backend", "com.docker.vpnkit", "rootlesskit", "limactl", "ssh")
BREW_LABELS = ("homebrew.mxcl.ollama", "sh.brew.ollama")
BREW_UNIT = "homebrew.ollama.service"
AGENT = ("host_agent.cli.main", "agent")


class OwnerKind(StrEnum):
    """`nobody`: nothing runs and nothing is registered. `orphan`: it runs, and nobody would bring it back."""

    NOBODY = "nobody"
    OURS = "vestal"
    OTHER_VESTAL = "other_vestal"
    BREW = "brew"
    LAUNCHD = "launchd"
    LAUNCHD_SYSTEM = "launchd_system"
    SYSTEMD_USER = "systemd_user"
    SYSTEMD_SYSTEM = "systemd_system"
    APP = "app"
    TERMINAL = "terminal"
    ORPHAN = "orphan"
    OTHER_USER = "other_user"
    CONTAINER = "container"
    REMOTE = "remote"
    STRANGER = "stranger"


@dataclass(frozen=True)
class Evidence:
    """What was seen. `address` is set where Ollama is not on this machine. `holder` listens on its port,
    `above` are the holder's ancestors, parent first. `held_unseen`: somebody listens whom the system does not
    show us. `ours` is the PID of our own child, `home` our VESTAL_HOME. `jobs`: the launchd jobs and systemd
    units that are about Ollama, or run the holder. `app`: the menu-bar app runs.
    """

    address: str = ""
    me: str = ""
    home: str = ""
    holder: ProcessSnapshot | None = None
    held_unseen: bool = False
    above: tuple[ProcessSnapshot, ...] = ()
    ours: int | None = None
    jobs: tuple[Job, ...] = ()
    app: ProcessSnapshot | None = None


@dataclass(frozen=True)
class Owner:
    """`name`: the job's label, the unit, the user, the program. `pid`: what listens, where that is known."""

    kind: OwnerKind = OwnerKind.NOBODY
    name: str = ""
    pid: int | None = None
    user: str = ""
    command: tuple[str, ...] = field(default=(), compare=False)

    @property
    def runs(self) -> bool:
        """Whether something listens where Ollama should."""
        return self.pid is not None or self.kind in (OwnerKind.OTHER_USER, OwnerKind.REMOTE)

    def __str__(self) -> str:
        return _TOLD[self.kind].format(self=self)


_TOLD = {
    OwnerKind.NOBODY: "nobody",
    OwnerKind.OURS: "Vestal",
    OwnerKind.OTHER_VESTAL: "another Vestal ({self.name})",
    OwnerKind.BREW: "Homebrew's services ({self.name})",
    OwnerKind.LAUNCHD: "the launchd job {self.name}",
    OwnerKind.LAUNCHD_SYSTEM: "the system's launchd job {self.name}",
    OwnerKind.SYSTEMD_USER: "the user's systemd unit {self.name}",
    OwnerKind.SYSTEMD_SYSTEM: "the system's systemd unit {self.name}",
    OwnerKind.APP: "the menu-bar app Ollama.app",
    OwnerKind.TERMINAL: "a terminal ({self.name})",
    OwnerKind.ORPHAN: "nobody (it was started by hand)",
    OwnerKind.OTHER_USER: "another user ({self.name})",
    OwnerKind.CONTAINER: "a container ({self.name})",
    OwnerKind.REMOTE: "another machine ({self.name})",
    OwnerKind.STRANGER: "{self.name}, which is no Ollama,",
}


def owner_of(evidence: Evidence) -> Owner:
    """The owner of what listens; where nothing does, of what is registered to run here."""
    if evidence.address:
        return Owner(OwnerKind.REMOTE, evidence.address)
    holder = evidence.holder
    if holder is None:
        return Owner(OwnerKind.OTHER_USER, "not told") if evidence.held_unseen else _registered(evidence)
    kind, name = _runs(evidence, holder)
    return Owner(kind, name, holder.pid, holder.user, holder.arguments)


def _runs(e: Evidence, holder: ProcessSnapshot) -> tuple[OwnerKind, str]:
    if holder.pid == e.ours:
        return OwnerKind.OURS, ""
    if holder.program in CONTAINER_PORTS or holder.name in CONTAINER_PORTS:
        return OwnerKind.CONTAINER, holder.program or holder.name
    if not is_server(holder) and holder.program != "ollama":
        return OwnerKind.STRANGER, f"{holder.program or holder.name} (PID {holder.pid})"
    job = _job_of(e, holder)
    if job is not None:
        return job
    if holder.user and e.me and holder.user != e.me:
        return OwnerKind.OTHER_USER, holder.user
    return _started_by(e, holder)


def _job_of(e: Evidence, holder: ProcessSnapshot) -> tuple[OwnerKind, str] | None:
    """The job or unit that runs this very process."""
    for job in e.jobs:
        if job.pid == holder.pid:
            return _kind_of(job), job.name
    return None


def _kind_of(job: Job) -> OwnerKind:
    if job.name in (*BREW_LABELS, BREW_UNIT):
        return OwnerKind.LAUNCHD_SYSTEM if job.system else OwnerKind.BREW
    if job.name.endswith(".service"):
        return OwnerKind.SYSTEMD_SYSTEM if job.system else OwnerKind.SYSTEMD_USER
    return OwnerKind.LAUNCHD_SYSTEM if job.system else OwnerKind.LAUNCHD


def _started_by(e: Evidence, holder: ProcessSnapshot) -> tuple[OwnerKind, str]:
    """No job runs it: its ancestors tell."""
    if any(is_menu_bar_app(process) for process in e.above):
        return OwnerKind.APP, ""
    vestal = next((p for p in e.above if p.words[-2:] == AGENT or AGENT[0] in p.arguments), None)
    if vestal is not None and vestal.home != e.home:
        return OwnerKind.OTHER_VESTAL, f"PID {vestal.pid}"
    if holder.home and holder.home != e.home:
        return OwnerKind.OTHER_VESTAL, f"home {holder.home}"
    shell = next((p for p in e.above[:2] if p.program.lstrip("-") in SHELLS), None)
    if shell is not None:
        return OwnerKind.TERMINAL, f"{shell.program.lstrip('-')}, PID {shell.pid}"
    return OwnerKind.ORPHAN, ""


def about_ollama(jobs: Iterable[Job], holder: int | None) -> tuple[Job, ...]:
    """Of all jobs those that run the holder, or have Ollama's name (`dev.me.ollama-mcp` has another)."""
    return tuple(
        job
        for job in jobs
        if (job.pid is not None and job.pid == holder)
        or ("ollama" in job.name.lower().split(".") and not job.name.startswith("application."))
    )


def _registered(e: Evidence) -> Owner:
    """Nothing listens: is somebody there whose business it is to start it?"""
    for job in e.jobs:
        return Owner(_kind_of(job), job.name)
    return Owner(OwnerKind.APP) if e.app is not None else Owner()
