"""From facts to issues and remedies. Pure.

The order is the ladder of R4.2: memory, ports, MLX, Ollama, the Docker engine, containers. What is healthy is
never touched; an open breaker is never bypassed; what a person stopped stays stopped.
"""

from collections.abc import Iterator

from host_agent.recovery.facts import (
    BringUp,
    EndOrphan,
    EndProcess,
    Facts,
    Issue,
    Kind,
    ReplaceHung,
    RestartContainer,
    ServiceFacts,
    StartChild,
    ThroughOwner,
    Unpause,
)
from vestal.supervision import State

ONLY_A_REBOOT = "only_a_reboot_helps"
COMING = {
    State.STARTING: "is starting",
    State.STOPPING: "is stopping",
    State.BACKOFF: "waits for its next restart",
}
RESET = "`vestal recover --reset` tries again at once"


def plan(facts: Facts) -> tuple[Issue, ...]:
    """Every issue, in the order in which they are to be dealt with."""
    return tuple(_memory(facts)) + tuple(_ports(facts)) + tuple(_services(facts))


def _memory(facts: Facts) -> Iterator[Issue]:
    room = facts.headroom
    if room.needs_reboot:
        left = f"{room.remedy}; the MLX server is not restarted"
        yield Issue("memory", room.shortage, left=left, event=ONLY_A_REBOOT)
    elif room.shortage:
        yield Issue("memory", room.shortage, left=room.remedy)


def _ports(facts: Facts) -> Iterator[Issue]:
    for port in facts.ports:
        if port.is_old_of_ours and port.pid is not None:
            yield Issue(port.service, port.sentence, EndProcess(port.service, port.pid))
        else:
            yield Issue(port.service, port.sentence, left=port.sentence)


def _services(facts: Facts) -> Iterator[Issue]:
    blocked = {port.service for port in facts.ports if not port.is_old_of_ours}
    for service in facts.services:
        yield from _orphans(service, facts)
        if service.name in blocked:
            continue
        issue = _issue(service, facts)
        if issue:
            yield issue


def _orphans(service: ServiceFacts, facts: Facts) -> Iterator[Issue]:
    """What a dead server left behind holds memory that its successor needs: it goes first."""
    for orphan in facts.orphans:
        if orphan.service != service.name:
            continue
        found = f"a runner without its server holds {orphan.rss_bytes / 1024**3:.1f} GiB (PID {orphan.pid})"
        if orphan.mine:
            yield Issue(service.name, found, EndOrphan(service.name, orphan.pid))
        else:
            yield Issue(service.name, found, left=f"{found}; `sudo kill {orphan.pid}` ends it")


def _issue(service: ServiceFacts, facts: Facts) -> Issue | None:
    if service.stopped_by_hand and not service.well:
        remedy = f"`POST /services/{service.name}/start` or `vestal up` starts it"
        return Issue(service.name, "was stopped by hand", left=f"stopped by hand; {remedy}")
    if service.kind is Kind.CHILD:
        return _child(service, facts)
    if service.well:
        return None
    if service.kind is Kind.OWNED:
        return _owned(service, facts)
    return _container(service, facts) if service.kind is Kind.CONTAINER else _watched(service)


def _child(service: ServiceFacts, facts: Facts) -> Issue | None:
    name, told = service.name, f": {service.detail}" if service.detail else ""
    if service.answers is False and service.pid is not None:
        return _hung(service, facts)
    if service.well:
        return None
    if service.state in COMING:
        return Issue(name, COMING[service.state] + told, comes_back=True)
    if service.state is State.OPEN:
        return Issue(name, f"its breaker is open{told}", left=f"given up for now{told}; {RESET}")
    if service.state is State.FAILED:
        return Issue(name, f"cannot start{told}", left=f"cannot start{told}; mend that, then {RESET}")
    if service.state in (State.STOPPED, State.ABSENT):
        if facts.headroom.needs_reboot:
            return Issue(
                name, "is stopped", left="not started: only a reboot frees the machine's wired memory"
            )
        return Issue(name, f"is stopped{told}", StartChild(name))
    return _watched(service)


def _hung(service: ServiceFacts, facts: Facts) -> Issue:
    found = f"runs (PID {service.pid}) and does not answer"
    if facts.headroom.needs_reboot:
        return Issue(
            service.name, found, left="not restarted: only a reboot frees the machine's wired memory"
        )
    if service.restarts_left <= 0:
        return Issue(service.name, found, left=f"restarted too often within the hour already; {RESET}")
    assert service.pid is not None
    return Issue(service.name, found, ReplaceHung(service.name, service.pid))


def _owned(service: ServiceFacts, facts: Facts) -> Issue:
    """Somebody else looks after it: through them, or not at all."""
    name, found = service.name, service.detail or f"is {service.state}"
    hung = service.answers is False
    if service.state in COMING or not (hung or service.state is State.STOPPED):
        return _watched(service)
    if facts.headroom.needs_reboot:
        return Issue(name, found, left="not restarted: only a reboot frees the machine's wired memory")
    if service.refusal:
        return Issue(name, found, left=found if service.refusal in found else f"{found}; {service.refusal}")
    if service.restarts_left <= 0:
        return Issue(name, found, left=f"{found}; restarted too often within the hour already")
    return Issue(name, found, ThroughOwner(name, "restart" if hung else "start", service.way))


def _container(service: ServiceFacts, facts: Facts) -> Issue:
    name = service.name
    if not facts.engine_answers:
        return Issue(name, "its Docker engine does not answer", left="waits for the Docker engine")
    if service.state in COMING:
        return Issue(name, f"{COMING[service.state]}: {service.detail}", comes_back=True)
    if service.paused:
        return Issue(name, "is paused", Unpause(name))
    hung = service.answers is False
    if hung or service.state is State.DEGRADED:
        found = "its container runs and does not answer" if hung else service.detail
        if service.restarts_left <= 0:
            by_hand = f"see `vestal logs {name}`; `POST /services/{name}/restart` tries again"
            left = f"{found}; restarted too often within the hour already; {by_hand}"
            return Issue(name, found, left=left)
        return Issue(name, found, RestartContainer(name, hung))
    return Issue(name, service.detail or "is stopped", BringUp(name))


def _watched(service: ServiceFacts) -> Issue:
    detail = service.detail or f"is {service.state}"
    return Issue(service.name, detail, left=detail, comes_back=service.state in COMING)
