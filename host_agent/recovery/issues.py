"""Find the issues in the facts of a recovery pass, each with its remedy or with advice for a person. Pure.

Issues come in the order in which they are dealt with: memory, ports, then the services: the MLX server,
Ollama, the Docker engine, the containers. No remedy touches a healthy service, bypasses an open breaker, or
starts a service that a person stopped.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from host_agent.recovery.facts import ControlledBy, Facts, ServiceFacts
from host_agent.recovery.remedies import (
    BringUpContainer,
    ControlThroughOwner,
    Remedy,
    ReplaceHungChild,
    RestartContainer,
    StartChild,
    TerminateOldServer,
    TerminateOrphan,
    UnpauseContainer,
)
from host_agent.services import MLX_ENGINE, MLX_SERVER
from vestal.config.units import format_size
from vestal.supervision import DOWN, State

ONLY_A_REBOOT = "only_a_reboot_helps"
IN_TRANSITION = {
    State.STARTING: "is starting",
    State.STOPPING: "is stopping",
    State.BACKOFF: "waits for its next restart",
}
RESET = "`vestal recover --reset` tries again at once"
STOPPED_BY_HAND = "was stopped by hand"
IS_DOWN = DOWN | {State.STOPPING}
NO_RESTART = "not restarted: only a reboot frees the machine's wired memory"
TOO_OFTEN = "restarted too often within the hour already"


@dataclass(frozen=True)
class Issue:
    """A problem of one service or of the machine, which `found` describes for a person.

    A recovery pass applies the `remedy`, if there is one, and waits for an issue that `resolves_itself`. For
    any other issue, `advice` says why nothing is done and what a person can do. `event` is the journal event
    by which a person is notified of the issue; "" if nobody is notified. `part` is what the issue is about if
    that is not the service itself: the identifier of a worker's container, or the PID of a runner without its
    server; else "".
    """

    service: str
    found: str
    remedy: Remedy | None = None
    advice: str = ""
    resolves_itself: bool = False
    event: str = ""
    part: str = ""

    @property
    def subject(self) -> tuple[str, str]:
        """Return what the issue is about: the service, and which part of it."""
        return self.service, self.part


def find_issues(facts: Facts) -> tuple[Issue, ...]:
    """Return every issue, in the order in which a pass handles them."""
    return tuple(_memory(facts)) + tuple(_ports(facts)) + tuple(_services(facts))


def _memory(facts: Facts) -> Iterator[Issue]:
    headroom = facts.headroom
    if headroom.needs_reboot:
        advice = f"{headroom.remedy}; the MLX server is not restarted"
        yield Issue("memory", headroom.shortage, advice=advice, event=ONLY_A_REBOOT)
    elif headroom.shortage:
        yield Issue("memory", headroom.shortage, advice=headroom.remedy)


def _ports(facts: Facts) -> Iterator[Issue]:
    for port in facts.ports:
        if port.held_by_old_server and port.pid is not None:
            yield Issue(port.service, port.sentence, TerminateOldServer(port.service, port.pid))
        else:
            yield Issue(port.service, port.sentence, advice=port.sentence)


def _services(facts: Facts) -> Iterator[Issue]:
    blocked = {port.service for port in facts.ports if not port.held_by_old_server}
    for service in facts.services:
        yield from _orphans(service, facts)
        if service.name in blocked:
            continue
        issue = _service(service, facts)
        if issue:
            yield replace(issue, part=service.container)


def _orphans(service: ServiceFacts, facts: Facts) -> Iterator[Issue]:
    """Yield an issue for each orphan of the service: a runner that still runs although its server has ended.
    These issues come before the service's own issue, because orphans hold memory that its next server needs.
    """
    for orphan in facts.orphans:
        if orphan.service != service.name:
            continue
        found = f"a runner without its server holds {format_size(orphan.rss_bytes)} (PID {orphan.pid})"
        if orphan.may_terminate:
            issue = Issue(service.name, found, TerminateOrphan(service.name, orphan.pid))
        else:
            issue = Issue(service.name, found, advice=f"{found}; `sudo kill {orphan.pid}` ends it")
        yield replace(issue, part=str(orphan.pid))


def _service(service: ServiceFacts, facts: Facts) -> Issue | None:
    # Docker reports that a container runs until it has ended, up to 20 s after the request to stop it.
    is_ending = service.controlled_by is ControlledBy.DOCKER or service.state in IS_DOWN
    if service.stopped_by_hand and is_ending and not service.healthy:
        started = MLX_SERVER if service.name == MLX_ENGINE else service.name
        start = f"`POST /services/{started}/start` or `vestal up` starts it"
        return Issue(service.name, STOPPED_BY_HAND, advice=f"stopped by hand; {start}")
    if service.controlled_by is ControlledBy.SUPERVISOR:
        return _child(service, facts)
    if service.healthy:
        return None
    if service.controlled_by is ControlledBy.OWNER:
        return _owned(service, facts)
    if service.controlled_by is ControlledBy.DOCKER:
        return _container(service, facts)
    return _watched(service)


def _child(service: ServiceFacts, facts: Facts) -> Issue | None:
    name, detail = service.name, f": {service.detail}" if service.detail else ""
    if service.answers is False and service.pid is not None:
        return _hung_child(service, service.pid, facts)
    if service.healthy:
        return None
    if service.state in IN_TRANSITION:
        return Issue(name, IN_TRANSITION[service.state] + detail, resolves_itself=True)
    if service.state is State.OPEN:
        return Issue(name, f"its breaker is open{detail}", advice=f"given up for now{detail}; {RESET}")
    if service.state is State.FAILED:
        advice = f"cannot start{detail}; mend that, then {RESET}"
        return Issue(name, f"cannot start{detail}", advice=advice)
    if service.state in (State.STOPPED, State.ABSENT):
        if facts.headroom.needs_reboot:
            return Issue(name, "is stopped", advice=NO_RESTART.replace("restarted", "started"))
        return Issue(name, f"is stopped{detail}", StartChild(name))
    return _watched(service)


def _hung_child(service: ServiceFacts, pid: int, facts: Facts) -> Issue:
    found = f"runs (PID {pid}) and does not answer{_evidence(service)}"
    if facts.headroom.needs_reboot:
        return Issue(service.name, found, advice=NO_RESTART)
    if service.restarts_left <= 0:
        return Issue(service.name, found, advice=f"{TOO_OFTEN}; {RESET}")
    return Issue(service.name, found, ReplaceHungChild(service.name, pid))


def _owned(service: ServiceFacts, facts: Facts) -> Issue:
    """Return the issue of an unhealthy service that an owner such as Homebrew controls.

    The remedy has the owner start a stopped service or restart a hung one. There is only advice, and no
    remedy, if the agent may not ask the owner, has restarted the service too often, or the machine needs a
    reboot.
    """
    name, found = service.name, service.detail or f"is {service.state}"
    hung = service.answers is False
    if service.state in IN_TRANSITION or not (hung or service.state is State.STOPPED):
        return _watched(service)
    if facts.headroom.needs_reboot:
        return Issue(name, found, advice=NO_RESTART)
    if service.refusal:
        return Issue(name, found, advice=found if service.refusal in found else f"{found}; {service.refusal}")
    if service.restarts_left <= 0:
        return Issue(name, found, advice=f"{found}; {TOO_OFTEN}; {RESET}")
    action = "restart" if hung else "start"
    return Issue(name, found, ControlThroughOwner(name, action, service.owner_plan))


def _container(service: ServiceFacts, facts: Facts) -> Issue:
    name = service.name
    if not facts.docker_answers:
        return Issue(name, "its Docker engine does not answer", advice="waits for the Docker engine")
    if service.state in IN_TRANSITION:
        return Issue(name, f"{IN_TRANSITION[service.state]}: {service.detail}", resolves_itself=True)
    if service.paused:
        return Issue(name, "is paused", UnpauseContainer(name, service.container))
    if service.container and service.state is State.FAILED:  # Docker calls it dead, and can only remove it
        remove = f"`docker rm --force {service.container}` removes it, and `vestal up` makes another one"
        return Issue(name, service.detail, advice=f"{service.detail}; {remove}")
    if service.works:  # Docker's own health check gets no answer either
        return Issue(name, service.evidence, advice=f"{service.evidence}; it is not restarted while it works")
    hung = service.answers is False
    if hung or service.state is State.DEGRADED or service.container:
        found = f"its container runs and does not answer{_evidence(service)}" if hung else service.detail
        if service.restarts_left <= 0:
            logs = f"docker logs {service.container}" if service.container else f"vestal logs {name}"
            return Issue(name, found, advice=f"{found}; {TOO_OFTEN}; see `{logs}`; {RESET}")
        return Issue(name, found, RestartContainer(name, hung, service.container))
    return Issue(name, service.detail or "is stopped", BringUpContainer(name))


def _evidence(service: ServiceFacts) -> str:
    return f": {service.evidence}" if service.evidence else ""


def _watched(service: ServiceFacts) -> Issue:
    detail = service.detail or f"is {service.state}"
    return Issue(service.name, detail, advice=detail, resolves_itself=service.state in IN_TRANSITION)
