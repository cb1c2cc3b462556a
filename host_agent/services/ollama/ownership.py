"""Find the owner of Ollama: who starts it and restarts it. Pure: evidence in, an owner out.

If Ollama has an owner, the agent does not start a second server but asks the owner to restart the first.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from host_agent.service_manager.unit_lookup import Job
from host_agent.services.ollama.classify import is_menu_bar_app, is_server
from vestal.platform.container_ports import listens_for_containers
from vestal.platform.processes.process_snapshot import ProcessSnapshot

SHELLS = ("bash", "zsh", "sh", "fish", "dash", "ksh", "tmux", "screen", "tcsh")
BREW_LABELS = ("homebrew.mxcl.ollama", "sh.brew.ollama")
BREW_UNIT = "homebrew.ollama.service"
AGENT = ("host_agent.cli.main", "agent")


class OwnerKind(StrEnum):
    """The kind of program or person, if any, that starts and restarts Ollama."""

    NOBODY = "nobody"  # nothing runs, and nothing is registered to start it
    OURS = "vestal"  # this agent's supervisor
    OTHER_VESTAL = "other_vestal"
    BREW = "brew"
    LAUNCHD = "launchd"
    LAUNCHD_SYSTEM = "launchd_system"
    SYSTEMD_USER = "systemd_user"
    SYSTEMD_SYSTEM = "systemd_system"
    APP = "app"
    TERMINAL = "terminal"
    ORPHAN = "orphan"  # it runs, and nobody would restart it
    OTHER_USER = "other_user"
    CONTAINER = "container"
    REMOTE = "remote"
    STRANGER = "stranger"  # another program holds Ollama's port
    ELSEWHERE = "elsewhere"  # nothing listens where it should, and this user runs a server at another address


@dataclass(frozen=True)
class OwnershipEvidence:
    """The evidence from which the owner of Ollama is found.

    `address` is set if Ollama is on another machine. `me` is the name of the user that the agent runs as.
    `holder` is the process that listens on Ollama's port, and `ancestors` are its ancestors, its parent
    first. `is_holder_hidden` is true if the system does not show us who listens. `own_pid` is the PID of the
    Ollama server that the agent itself started, None if it does not run; `home` is the agent's VESTAL_HOME.
    `jobs` are the launchd jobs and systemd units that have Ollama's name or run the holder. `app` is the
    menu-bar app, if it runs. `elsewhere` is an `ollama serve` of this user that does not listen on Ollama's
    port, and `elsewhere_address` the address at which it listens instead; empty if it does not listen.
    """

    address: str = ""
    me: str = ""
    home: str = ""
    holder: ProcessSnapshot | None = None
    is_holder_hidden: bool = False
    ancestors: tuple[ProcessSnapshot, ...] = ()
    own_pid: int | None = None
    jobs: tuple[Job, ...] = ()
    app: ProcessSnapshot | None = None
    elsewhere: ProcessSnapshot | None = None
    elsewhere_address: str = ""


@dataclass(frozen=True)
class Owner:
    """The owner of Ollama: who, if anyone, starts and restarts it.

    `name` identifies the owner as its `kind` requires: for example, it is the label of a launchd job, or the
    name of a systemd unit, a user or a program. `pid` is the process that listens on Ollama's port, and
    `user` the user that it runs as, if they are known. Only an owner of the kind ELSEWHERE has an `address`:
    the one at which its server listens, "" if it does not listen yet. `is_unloaded` is True for a launchd job
    that the agent has unloaded, because a person stopped Ollama, and that launchd does not list.
    """

    kind: OwnerKind = OwnerKind.NOBODY
    name: str = ""
    pid: int | None = None
    user: str = ""
    address: str = ""
    is_unloaded: bool = False

    @property
    def runs(self) -> bool:
        """Return whether something listens on Ollama's port."""
        return self.pid is not None or self.kind in (OwnerKind.OTHER_USER, OwnerKind.REMOTE)

    def __str__(self) -> str:
        return _DESCRIPTIONS[self.kind].format(self=self)


_DESCRIPTIONS = {
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
    OwnerKind.STRANGER: "{self.name}, which is not Ollama,",
    OwnerKind.ELSEWHERE: "another `ollama serve` of this user ({self.name})",
}


def owner_of(evidence: OwnershipEvidence) -> Owner:
    """Return the owner of the server that listens on Ollama's port. If none listens, return who is registered
    to start one.
    """
    if evidence.address:
        return Owner(OwnerKind.REMOTE, evidence.address)
    holder = evidence.holder
    if holder is None:
        if evidence.is_holder_hidden:
            return Owner(OwnerKind.OTHER_USER, "unknown")
        return _registered_owner(evidence)
    kind, name = _owner_of_running(evidence, holder)
    return Owner(kind, name, holder.pid, holder.user)


def owner_to_start(found: Owner, kind: str, name: str) -> Owner:
    """Return the owner (the program that runs Ollama, such as Homebrew) that a person's request to start
    Ollama goes to. `found` is the owner that is registered to start Ollama now.

    `kind` and `name` are those of the owner that ran Ollama until a person stopped it; `kind` is "" if no
    such owner was saved. If there is no saved owner, or if it is the same as `found`, return `found`.
    Otherwise return the saved owner with `is_unloaded` set, because its launchd job was unloaded when the
    person stopped Ollama. After a new login, launchd has loaded the job again, and `found` is the saved
    owner.
    """
    if not kind or (found.kind, found.name) == (kind, name):
        return found
    return Owner(OwnerKind(kind), name, is_unloaded=True)


def _owner_of_running(evidence: OwnershipEvidence, holder: ProcessSnapshot) -> tuple[OwnerKind, str]:
    if holder.pid == evidence.own_pid:
        return OwnerKind.OURS, ""
    if listens_for_containers(holder.program) or listens_for_containers(holder.name):
        return OwnerKind.CONTAINER, holder.program or holder.name
    if not is_server(holder) and holder.program != "ollama":
        return OwnerKind.STRANGER, f"{holder.program or holder.name} (PID {holder.pid})"
    job = _job_of(evidence, holder)
    if job is not None:
        return job
    if holder.user and evidence.me and holder.user != evidence.me:
        return OwnerKind.OTHER_USER, holder.user
    return _starter_of(evidence, holder)


def _job_of(evidence: OwnershipEvidence, holder: ProcessSnapshot) -> tuple[OwnerKind, str] | None:
    """Return the kind and name of the launchd job or systemd unit that runs `holder`, the process that
    listens on Ollama's port; None if there is none.
    """
    for job in evidence.jobs:
        if job.pid == holder.pid:
            return _kind_of(job), job.name
    return None


def _kind_of(job: Job) -> OwnerKind:
    if job.name in (*BREW_LABELS, BREW_UNIT):
        return OwnerKind.LAUNCHD_SYSTEM if job.system else OwnerKind.BREW
    if job.name.endswith(".service"):
        return OwnerKind.SYSTEMD_SYSTEM if job.system else OwnerKind.SYSTEMD_USER
    return OwnerKind.LAUNCHD_SYSTEM if job.system else OwnerKind.LAUNCHD


def _starter_of(evidence: OwnershipEvidence, holder: ProcessSnapshot) -> tuple[OwnerKind, str]:
    """Return who started an Ollama server that neither launchd nor systemd runs: the kind of owner, and its
    name, "" if the kind says enough. `holder` is the server's process. The evidence is the environment of
    that process, and its ancestors.
    """
    if any(is_menu_bar_app(process) for process in evidence.ancestors):
        return OwnerKind.APP, ""
    agent = next((p for p in evidence.ancestors if p.words[-2:] == AGENT or AGENT[0] in p.arguments), None)
    if agent is not None and agent.home != evidence.home:
        return OwnerKind.OTHER_VESTAL, f"PID {agent.pid}"
    if holder.home and holder.home != evidence.home:
        return OwnerKind.OTHER_VESTAL, f"home {holder.home}"
    shell = next((p for p in evidence.ancestors[:2] if p.program.lstrip("-") in SHELLS), None)
    if shell is not None:
        return OwnerKind.TERMINAL, f"{shell.program.lstrip('-')}, PID {shell.pid}"
    return OwnerKind.ORPHAN, ""


def ollama_jobs(jobs: Iterable[Job], holder: int | None) -> tuple[Job, ...]:
    """Return the jobs (of launchd or systemd) that belong to Ollama. `holder` is the PID of the process that
    listens on Ollama's port, None if it is unknown.

    The job that runs `holder` belongs to Ollama, and so does each job whose name has `ollama` as a whole part
    between periods: `com.ollama.ollama` does, `dev.me.ollama-mcp` does not. A job `application.…`, which
    launchd makes for an open app, counts only if it runs `holder`.
    """
    return tuple(
        job
        for job in jobs
        if (job.pid is not None and job.pid == holder)
        or ("ollama" in job.name.lower().split(".") and not job.name.startswith("application."))
    )


def _registered_owner(evidence: OwnershipEvidence) -> Owner:
    """Return the owner of Ollama while nothing listens on its port: another server of this user, if one runs;
    else the launchd job or systemd unit that is registered to start Ollama; else the menu-bar app, if that
    runs; else nobody.
    """
    if evidence.elsewhere is not None:
        name = f"PID {evidence.elsewhere.pid}"
        return Owner(OwnerKind.ELSEWHERE, name, address=evidence.elsewhere_address)
    for job in evidence.jobs:
        return Owner(_kind_of(job), job.name)
    return Owner(OwnerKind.APP) if evidence.app is not None else Owner()
