"""The row of Ollama, put together from what was seen. Pure."""

from dataclasses import dataclass, replace
from typing import Any

from host_agent.services.ollama.answers import Light, Verdict
from host_agent.services.ollama.ownership import Owner, OwnerKind
from host_agent.services.service_status import ServiceStatus, of_child
from vestal.supervision import ChildStatus, State

FAILURES = 3  # in a row mean down (R3.2)
BEING_STARTED = (State.STARTING, State.STOPPING, State.BACKOFF, State.OPEN, State.FAILED)


@dataclass(frozen=True)
class Scene:
    """What was seen last. `light` is None where nothing answered, and `verdict` says why. `how` tells the way
    to start or restart it; `owner` looks after it. `lists_none`: it has no models, and this user has some."""

    owner: Owner = Owner()
    light: Light | None = None
    verdict: Verdict = Verdict(True)
    failures: int = 0
    installed: bool = True
    must_be: bool = False
    by_hand: bool = False
    lists_none: bool = False
    how: str = ""
    where: str = ""

    @property
    def down(self) -> bool:
        """It runs, and is no use."""
        return self.owner.runs and not self.verdict.ok and self.failures >= FAILURES


def row(scene: Scene, child: ChildStatus) -> ServiceStatus:
    """The line of the table. `child` is what our supervisor says of a server of ours."""
    extra = _extra(scene)
    if scene.owner.kind is OwnerKind.OURS or child.process_pid is not None or child.state in BEING_STARTED:
        return _of_ours(scene, child, extra)
    if scene.owner.kind is OwnerKind.STRANGER and scene.light is None and not scene.installed:
        return ServiceStatus(
            State.ABSENT, detail=f"not installed; {scene.owner} has its port", expected=False
        )
    if scene.light is not None or scene.owner.runs:
        return _of_others(scene, extra)
    return _stopped(scene, extra)


def _of_ours(scene: Scene, child: ChildStatus, extra: dict[str, Any]) -> ServiceStatus:
    told = replace(of_child(child), extra={**extra, "owner": "Vestal", "managed": True})
    if child.state is State.DEGRADED or child.state not in (State.READY, State.BUSY):
        return told
    trouble = "" if scene.verdict.ok else f"{_trouble(scene)}; started by Vestal"
    return replace(told, detail=child.detail or trouble or _well(scene, "started by Vestal"))


def _of_others(scene: Scene, extra: dict[str, Any]) -> ServiceStatus:
    row = ServiceStatus(
        State.READY, process_pid=scene.owner.pid, extra=extra, health_check_failures=scene.failures
    )
    by = f"looked after by {scene.owner}"
    if not scene.verdict.ok:
        return replace(row, state=State.DEGRADED, detail=f"{_trouble(scene)}; {by}")
    if scene.lists_none:
        return replace(row, state=State.DEGRADED, detail=f"{lists_none(scene)}; {by}")
    state = State.BUSY if scene.verdict.busy else State.READY
    return replace(row, state=state, detail=scene.verdict.detail or _well(scene, by))


def _trouble(scene: Scene) -> str:
    answer = "does not answer" if scene.light is None else "answers, and is no use"
    return f"{answer} ({scene.verdict.detail})"


def _stopped(scene: Scene, extra: dict[str, Any]) -> ServiceStatus:
    if scene.by_hand:
        return ServiceStatus(State.STOPPED, detail="stopped by hand", extra=extra)
    if not scene.installed:
        told = "not installed"
        if scene.must_be:
            remedy = "install it (https://ollama.com/download), or set VESTAL_OLLAMA__MANAGE=auto"
            return ServiceStatus(
                State.STOPPED, detail=f"{told}, and ollama.manage is always: {remedy}", extra=extra
            )
        return ServiceStatus(State.ABSENT, detail=told, expected=False)
    why = f" ({scene.verdict.detail})" if scene.verdict.detail else ""
    detail = f"installed but not answering at {scene.where}{why}; {scene.how}"
    return ServiceStatus(State.STOPPED, detail=detail, health_check_failures=scene.failures, extra=extra)


def lists_none(scene: Scene) -> str:
    """The sentence for a server that has another user's models."""
    user = f" as {scene.owner.user}" if scene.owner.user else ""
    return (
        f"it runs{user} and lists no models, and ~/.ollama/models has some: it is another user's; stop it "
        "(`brew services stop ollama`, or `sudo systemctl stop ollama`) and start it as their owner"
    )


def _well(scene: Scene, by: str) -> str:
    if scene.light is None:
        return by
    count = len(scene.light.models)
    models = "no models yet (`ollama pull`)" if not count else "1 model" if count == 1 else f"{count} models"
    return f"version {scene.light.version}, {models}; {by}"


def _extra(scene: Scene) -> dict[str, Any]:
    known: dict[str, Any] = {"owner": str(scene.owner), "managed": False}
    if scene.light is not None:
        loaded = [model.name for model in scene.light.loaded]
        known |= {"version": scene.light.version, "models": len(scene.light.models), "loaded": loaded}
    return known
