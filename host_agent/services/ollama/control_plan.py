"""How Ollama is started, stopped and restarted, by its owner. Pure: an owner and an action in, a way out."""

from dataclasses import dataclass

from host_agent.services.ollama.ownership import Owner, OwnerKind

Commands = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Tools:
    """What there is on this machine to do it with. `acts` is False where Vestal only watches."""

    uid: int = 0
    brew: str = "brew"
    agents_folder: str = ""  # ~/Library/LaunchAgents
    acts: bool = True


@dataclass(frozen=True)
class ControlPlan:
    """One of: `commands` of the owner's, one after the other; `end` the process with this PID and, with
    `ours`, start one of our own; or neither, and `refusal` says who can."""

    commands: Commands = ()
    end: int | None = None
    ours: bool = False
    refusal: str = ""

    def __str__(self) -> str:
        if self.refusal:
            return self.refusal
        if self.commands:
            return " and ".join(f"`{' '.join(command)}`" for command in self.commands)
        ended = f"end PID {self.end}" if self.end is not None else ""
        started = "start `ollama serve` under Vestal" if self.ours else ""
        return " and ".join(part for part in (ended, started) if part)


def way(owner: Owner, action: str, tools: Tools) -> ControlPlan:
    """The way to `start`, `stop` or `restart` it; one with a refusal where that is not for us to do."""
    found = _way(owner, action, tools)
    if found.refusal or tools.acts:
        return found
    by_hand = str(found) if found.commands else _by_hand(owner, action)
    return ControlPlan(
        refusal=f"Vestal only watches Ollama (ollama.manage is watch); to {action} it: {by_hand}"
    )


def _way(owner: Owner, action: str, tools: Tools) -> ControlPlan:
    match owner.kind:
        case OwnerKind.BREW:
            return ControlPlan(((tools.brew, "services", action, "ollama"),))
        case OwnerKind.LAUNCHD:
            return ControlPlan((_launchctl(owner.name, action, tools),))
        case OwnerKind.SYSTEMD_USER:
            return ControlPlan((("systemctl", "--user", action, owner.name),))
        case OwnerKind.SYSTEMD_SYSTEM:
            return _as_root(owner, ("systemctl", action, owner.name), tools)
        case OwnerKind.LAUNCHD_SYSTEM:
            return _as_root(owner, _launchctl_system(owner.name, action), tools)
        case OwnerKind.APP:
            return _app(owner, action)
        case OwnerKind.ORPHAN | OwnerKind.NOBODY | OwnerKind.OURS:
            return _ownerless(owner, action)
        case _:
            return ControlPlan(refusal=_refusal(owner, action))


def _launchctl(label: str, action: str, tools: Tools) -> tuple[str, ...]:
    domain = f"gui/{tools.uid}"
    plist = f"{tools.agents_folder}/{label}.plist"
    return {
        "restart": ("launchctl", "kickstart", "-k", f"{domain}/{label}"),
        "stop": ("launchctl", "bootout", f"{domain}/{label}"),
        "start": ("launchctl", "bootstrap", domain, plist),
    }[action]


def _launchctl_system(label: str, action: str) -> tuple[str, ...]:
    return {
        "restart": ("launchctl", "kickstart", "-k", f"system/{label}"),
        "stop": ("launchctl", "bootout", f"system/{label}"),
        "start": ("launchctl", "bootstrap", "system", f"/Library/LaunchDaemons/{label}.plist"),
    }[action]


def _as_root(owner: Owner, command: tuple[str, ...], tools: Tools) -> ControlPlan:
    if tools.uid == 0:
        return ControlPlan((command,))
    by_hand = f"`sudo {' '.join(command)}`"
    return ControlPlan(refusal=f"{owner} looks after Ollama, and root is needed: {by_hand}")


def _app(owner: Owner, action: str) -> ControlPlan:
    """The app starts its server again within a second: a restart is an end, a stop means quitting the app."""
    if action == "restart" and owner.pid is not None:
        return ControlPlan(end=owner.pid)
    if action == "stop":
        return ControlPlan((("osascript", "-e", 'quit app "Ollama"'),))
    return ControlPlan((("open", "-g", "-a", "Ollama"),))


def _ownerless(owner: Owner, action: str) -> ControlPlan:
    """Nobody but us would start it again, so it becomes ours."""
    if action == "stop":
        return ControlPlan(end=owner.pid)
    return ControlPlan(end=owner.pid if action == "restart" else None, ours=True)


def _by_hand(owner: Owner, action: str) -> str:
    ended = [f"`kill {owner.pid}`"] if owner.pid is not None and action != "start" else []
    started = ["`ollama serve`"] if action != "stop" and owner.kind is not OwnerKind.APP else []
    return ", then ".join(ended + started) or "nothing runs"


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
    return f"Ollama belongs to {owner}: {action} it there"
