"""Compose the status of Ollama from observations. Pure."""

from dataclasses import dataclass, replace
from typing import Any

from host_agent.services.ollama.answers import ModelProbeResult, ServerInfo
from host_agent.services.ollama.ownership import Owner, OwnerKind
from host_agent.services.service_status import ServiceStatus, manually_stopped
from vestal.supervision import UP, ChildStatus, State

FAILURES_UNTIL_DOWN = 3  # failed checks in a row
CHILD_STATES = (State.STARTING, State.STOPPING, State.BACKOFF, State.OPEN, State.FAILED)


@dataclass(frozen=True)
class Observation:
    """One observation of Ollama.

    `owner` is who starts and restarts Ollama, and `installed` says whether this machine has its program.
    `server_info` is None if nothing answered; `verdict` then says why. `failures` counts the failed checks in
    a row. `required` is True if the configuration demands Ollama. `stopped_by_hand` is True if a person
    stopped it and nobody has started it since; only OllamaService.service_status sets it. `lists_no_models`
    is True if the server lists no models although this user has models on disk. `instructions` says how to
    start or restart Ollama, and `url` is where it should answer.
    """

    owner: Owner = Owner()
    server_info: ServerInfo | None = None
    verdict: ModelProbeResult = ModelProbeResult(True)
    failures: int = 0
    installed: bool = True
    required: bool = False
    stopped_by_hand: bool = False
    lists_no_models: bool = False
    instructions: str = ""
    url: str = ""

    @property
    def is_down(self) -> bool:
        """Return True if at least FAILURES_UNTIL_DOWN checks in a row have failed although something listens
        on Ollama's port. If nothing listens there, Ollama is stopped, not down. If Ollama is on another
        machine, whose ports cannot be looked up, something is assumed to listen.
        """
        return self.owner.runs and not self.verdict.ok and self.failures >= FAILURES_UNTIL_DOWN


def service_status(seen: Observation, child: ChildStatus) -> ServiceStatus:
    """Return the status of Ollama. `seen` is an observation of what answers at Ollama's address, and `child`
    is the supervisor's status of the server that the agent itself starts.

    If that server runs, is to be started, or was given up, the state is that of `child`, or DEGRADED if the
    server is up and the last check failed. Otherwise `seen` decides the state.
    """
    has_child = child.process_pid is not None or child.state in CHILD_STATES
    if seen.owner.kind is OwnerKind.OURS and not has_child:  # the server ended after this observation
        seen = replace(seen, owner=Owner(), server_info=None)
    extra = _extra(seen)
    if has_child:
        return _own_server(seen, child, extra)
    if seen.owner.kind is OwnerKind.STRANGER and seen.server_info is None and not seen.installed:
        return ServiceStatus(State.ABSENT, detail=f"not installed; {seen.owner} has its port", expected=False)
    if seen.server_info is not None or seen.owner.runs:
        return _owned_server(seen, extra)
    return _no_server(seen, extra)


def _own_server(seen: Observation, child: ChildStatus, extra: dict[str, Any]) -> ServiceStatus:
    status = replace(ServiceStatus.of_child(child), extra={**extra, "owner": "Vestal", "managed": True})
    if child.state not in UP:
        return status
    if not seen.verdict.ok:  # also before its supervisor has counted enough failures to restart it
        return replace(status, state=State.DEGRADED, detail=f"{_trouble(seen)}; started by Vestal")
    return replace(status, detail=status.detail or _summary(seen, "started by Vestal"))


def _owned_server(seen: Observation, extra: dict[str, Any]) -> ServiceStatus:
    status = ServiceStatus(
        State.READY, process_pid=seen.owner.pid, extra=extra, health_check_failures=seen.failures
    )
    by = f"looked after by {seen.owner}"
    if not seen.verdict.ok:
        return replace(status, state=State.DEGRADED, detail=f"{_trouble(seen)}; {by}")
    if seen.lists_no_models:
        return replace(status, state=State.DEGRADED, detail=f"{no_models_sentence(seen)}; {by}")
    state = State.BUSY if seen.verdict.busy else State.READY
    return replace(status, state=state, detail=seen.verdict.detail or _summary(seen, by))


def _no_server(seen: Observation, extra: dict[str, Any]) -> ServiceStatus:
    if seen.stopped_by_hand:
        return replace(manually_stopped(), extra=extra)
    if not seen.installed:
        if not seen.required:
            return ServiceStatus(State.ABSENT, detail="not installed", expected=False)
        remedy = "install it (https://ollama.com/download), or set VESTAL_OLLAMA__MANAGE=auto"
        detail = "not installed, and ollama.manage is always"
        return ServiceStatus(State.STOPPED, detail=detail, remedy=remedy, extra=extra)
    why = f" ({seen.verdict.detail})" if seen.verdict.detail else ""
    detail = f"installed but not answering at {seen.url}{why}; {seen.instructions}"
    return ServiceStatus(State.STOPPED, detail=detail, health_check_failures=seen.failures, extra=extra)


def no_models_sentence(seen: Observation) -> str:
    """Return a sentence that explains why the server in `seen` lists no models although this user has models
    on disk: it is another user's. Call this only if `seen.lists_no_models` is True.
    """
    user = f" as {seen.owner.user}" if seen.owner.user else ""
    return (
        f"it runs{user} and lists no models, and ~/.ollama/models has some: it is another user's; stop it "
        "(`brew services stop ollama`, or `sudo systemctl stop ollama`) and start it as their owner"
    )


def _trouble(seen: Observation) -> str:
    answer = "does not answer" if seen.server_info is None else "answers, but not as it should"
    return f"{answer} ({seen.verdict.detail})"


def _summary(seen: Observation, by: str) -> str:
    if seen.server_info is None:
        return by
    count = len(seen.server_info.models)
    models = "no models yet (`ollama pull`)" if not count else "1 model" if count == 1 else f"{count} models"
    return f"version {seen.server_info.version}, {models}; {by}"


def _extra(seen: Observation) -> dict[str, Any]:
    known: dict[str, Any] = {"owner": str(seen.owner), "managed": False}
    if info := seen.server_info:
        loaded = [model.name for model in info.loaded]
        known |= {"version": info.version, "models": len(info.models), "loaded": loaded}
    return known
