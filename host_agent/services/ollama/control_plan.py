"""Plan how Ollama is started, stopped or restarted by its owner. Pure."""

from dataclasses import dataclass

from host_agent.services.ollama.ownership import Owner, OwnerKind

Commands = tuple[tuple[str, ...], ...]
DAEMONS_FOLDER = "/Library/LaunchDaemons"


@dataclass(frozen=True)
class Tools:
    """What Vestal can use on this machine to control Ollama.

    `uid` is the numeric ID of the user that the agent runs as. `brew` is the path of Homebrew's command, and
    `agents_folder` the folder of this user's launchd jobs. `may_act` is False if Vestal only watches Ollama.
    """

    uid: int = 0
    brew: str = "brew"
    agents_folder: str = ""  # ~/Library/LaunchAgents
    may_act: bool = True


@dataclass(frozen=True)
class ControlPlan:
    """How Ollama is started, stopped or restarted, in one of three ways.

    Either `commands` are run in order, such as those of Homebrew or systemd if that program runs Ollama. Or
    the process `terminate_pid`, if any, is terminated and, with `start_own`, the agent's own server is
    started. Or nothing is done, and `refusal` says why, and what a person can do.
    """

    commands: Commands = ()
    terminate_pid: int | None = None
    start_own: bool = False
    refusal: str = ""

    def __str__(self) -> str:
        if self.refusal:
            return self.refusal
        if self.commands:
            return " and ".join(f"`{' '.join(command)}`" for command in self.commands)
        end = f"end PID {self.terminate_pid}" if self.terminate_pid is not None else ""
        start = "start `ollama serve` under Vestal" if self.start_own else ""
        return " and ".join(part for part in (end, start) if part)


def make_plan(owner: Owner, action: str, tools: Tools) -> ControlPlan:
    """Return the plan to `start`, `stop` or `restart` Ollama, as `action` says. `owner` is who starts and
    restarts Ollama, such as Homebrew, and `tools` is what Vestal can use to control it.

    If Vestal only watches Ollama, root is needed, or the owner is one that Vestal cannot control, the plan is
    to do nothing: its `refusal` says why, and what a person can do.
    """
    plan = _plan(owner, action, tools)
    if plan.refusal or tools.may_act:
        return plan
    by_hand = str(plan) if plan.commands else _by_hand(owner, action)
    return ControlPlan(
        refusal=f"Vestal only watches Ollama (ollama.manage is watch); to {action} it: {by_hand}"
    )


def _plan(owner: Owner, action: str, tools: Tools) -> ControlPlan:
    match owner.kind:
        case OwnerKind.BREW:
            return ControlPlan(((tools.brew, "services", action, "ollama"),))
        case OwnerKind.LAUNCHD:
            return ControlPlan((_launchctl(owner, action, f"gui/{tools.uid}", tools.agents_folder),))
        case OwnerKind.SYSTEMD_USER:
            return ControlPlan((("systemctl", "--user", action, owner.name),))
        case OwnerKind.SYSTEMD_SYSTEM:
            return _as_root(owner, ("systemctl", action, owner.name), tools)
        case OwnerKind.LAUNCHD_SYSTEM:
            return _as_root(owner, _launchctl(owner, action, "system", DAEMONS_FOLDER), tools)
        case OwnerKind.APP:
            return _menu_bar_app(owner, action)
        case OwnerKind.ORPHAN | OwnerKind.NOBODY | OwnerKind.OURS:
            return _without_owner(owner, action)
        case _:
            return ControlPlan(refusal=_refusal(owner, action))


def _launchctl(owner: Owner, action: str, domain: str, folder: str) -> tuple[str, ...]:
    """Return the command that carries out `action` for a launchd job. `folder` has the property lists of the
    launchd domain.

    `bootstrap` loads an unloaded job; launchd refuses it for a loaded one, which `kickstart` starts.
    """
    job = f"{domain}/{owner.name}"
    if action == "start" and owner.is_unloaded:
        return ("launchctl", "bootstrap", domain, f"{folder}/{owner.name}.plist")
    return {
        "restart": ("launchctl", "kickstart", "-k", job),
        "stop": ("launchctl", "bootout", job),
        "start": ("launchctl", "kickstart", job),
    }[action]


def _as_root(owner: Owner, command: tuple[str, ...], tools: Tools) -> ControlPlan:
    if tools.uid == 0:
        return ControlPlan((command,))
    by_hand = f"`sudo {' '.join(command)}`"
    return ControlPlan(refusal=f"{owner} looks after Ollama, and root is needed: {by_hand}")


def _menu_bar_app(owner: Owner, action: str) -> ControlPlan:
    """Return the plan that carries out `action` if Ollama.app runs the server. To restart the server, it is
    terminated, because the app starts another within a second. To stop the server, the app is quit; to start
    it, the app is opened.
    """
    if action == "restart" and owner.pid is not None:
        return ControlPlan(terminate_pid=owner.pid)
    if action == "stop":
        return ControlPlan((("osascript", "-e", 'quit app "Ollama"'),))
    return ControlPlan((("open", "-g", "-a", "Ollama"),))


def _without_owner(owner: Owner, action: str) -> ControlPlan:
    """Return the plan that carries out `action` if no other program or person starts and restarts Ollama. A
    stop or restart terminates the server that runs, whose PID is `owner.pid`, None if none runs. A start or
    restart starts the agent's own server.
    """
    if action == "stop":
        return ControlPlan(terminate_pid=owner.pid)
    return ControlPlan(terminate_pid=owner.pid if action == "restart" else None, start_own=True)


def _by_hand(owner: Owner, action: str) -> str:
    end = [f"`kill {owner.pid}`"] if owner.pid is not None and action != "start" else []
    start = ["`ollama serve`"] if action != "stop" and owner.kind is not OwnerKind.APP else []
    return ", then ".join(end + start) or "nothing runs"


def _refusal(owner: Owner, action: str) -> str:
    if owner.kind is OwnerKind.TERMINAL:
        then = "" if action == "stop" else ", then `ollama serve`, or leave it to Vestal"
        return f"Ollama runs in {owner}: end it there (Ctrl-C, or `kill {owner.pid}`){then}"
    if owner.kind is OwnerKind.OTHER_USER:
        return (
            f"Ollama runs as {owner}: stop it there (`brew services stop ollama`, or "
            "`sudo systemctl stop ollama`), then start it as the user who owns the models"
        )
    if owner.kind is OwnerKind.STRANGER:
        return f"{owner} holds Ollama's port: end it, or set OLLAMA_BASE_URL to another port"
    if owner.kind is OwnerKind.ELSEWHERE:
        where = f"listens at {owner.address}" if owner.address else "does not listen yet"
        use = f"set OLLAMA_BASE_URL=http://{owner.address} to use it" if owner.address else "wait for it"
        return (
            f"another `ollama serve` of this user ({owner.name}) {where}, and two would share one memory: "
            f"{use}, or end it, or set ollama.manage to always"
        )
    return f"Ollama belongs to {owner}: {action} it there"
