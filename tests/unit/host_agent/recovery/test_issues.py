"""The issues that a recovery pass finds, and the remedy or the advice that each of them gets."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host_agent.recovery.facts import ControlledBy, Facts, OrphanFacts, PortFacts, ServiceFacts
from host_agent.recovery.issues import IS_DOWN, ONLY_A_REBOOT, STOPPED_BY_HAND, Issue, find_issues
from host_agent.recovery.remedies import (
    BringUpContainer,
    ControlThroughOwner,
    ReplaceHungChild,
    RestartContainer,
    StartChild,
    TerminateOldServer,
    TerminateOrphan,
    UnpauseContainer,
)
from vestal.platform.memory_headroom import Headroom
from vestal.supervision import State

NO_ROOM = Headroom("80% is wired down", needs_reboot=True)
MLX = ServiceFacts("mlx_server", ControlledBy.SUPERVISOR, State.READY, healthy=True, answers=True, pid=10)
ORCHESTRATOR = ServiceFacts("orchestrator", ControlledBy.DOCKER, State.READY, healthy=True)
OLLAMA = ServiceFacts("ollama", ControlledBy.NOBODY, State.ABSENT, healthy=True)


def down(service: ServiceFacts, state: State, **changes) -> ServiceFacts:
    return replace(service, state=state, healthy=False, answers=None, pid=None, **changes)


def only(service: ServiceFacts, **facts) -> Issue:
    """Return the one issue of a machine with this service."""
    issues = find_issues(Facts(services=(service,), **facts))
    assert len(issues) == 1
    return issues[0]


def test_recovery_finds_no_issue_with_healthy_services():
    assert find_issues(Facts(services=(MLX, OLLAMA, ORCHESTRATOR))) == ()


def test_recovery_starts_a_stopped_child():
    assert only(down(MLX, State.STOPPED)).remedy == StartChild("mlx_server")


def test_recovery_does_not_start_a_child_stopped_by_a_person_and_says_how_to_start_it():
    issue = only(down(MLX, State.STOPPED, stopped_by_hand=True))
    assert issue.remedy is None
    assert "POST /services/mlx_server/start" in issue.advice


def test_recovery_advises_to_start_the_gateway_of_an_engine_that_a_person_stopped():
    engine = ServiceFacts("mlx_engine", ControlledBy.NOBODY, State.STOPPED, stopped_by_hand=True)
    assert "POST /services/mlx_server/start" in only(engine).advice


@pytest.mark.parametrize("state", [State.OPEN, State.FAILED])
def test_recovery_advises_a_reset_for_a_child_that_failed_or_has_an_open_breaker(state: State):
    issue = only(down(MLX, state, detail="exit code 78"))
    assert issue.remedy is None
    assert "exit code 78" in issue.advice
    assert "vestal recover --reset" in issue.advice


@pytest.mark.parametrize("state", [State.STARTING, State.STOPPING, State.BACKOFF])
def test_recovery_waits_for_a_child_that_is_starting_or_stopping_or_in_restart_backoff(state: State):
    issue = only(down(MLX, state))
    assert issue.remedy is None
    assert issue.resolves_itself


def test_recovery_replaces_a_child_that_does_not_answer():
    assert only(replace(MLX, healthy=False, answers=False)).remedy == ReplaceHungChild("mlx_server", 10)


def test_recovery_only_advises_on_a_hung_child_without_restarts_left():
    issue = only(replace(MLX, healthy=False, answers=False, restarts_left=0))
    assert issue.remedy is None
    assert "too often" in issue.advice


@pytest.mark.parametrize("service", [down(MLX, State.STOPPED), replace(MLX, healthy=False, answers=False)])
def test_recovery_with_stranded_wired_memory_restarts_nothing_and_advises_a_reboot(service: ServiceFacts):
    issues = find_issues(Facts(services=(service,), headroom=NO_ROOM))
    assert [issue.service for issue in issues] == ["memory", "mlx_server"]
    assert not any(issue.remedy for issue in issues)
    assert all("reboot" in issue.advice for issue in issues)
    assert (issues[0].event, issues[0].found) == (ONLY_A_REBOOT, NO_ROOM.shortage)


@pytest.mark.parametrize(
    ("service", "remedy"),
    [
        (down(ORCHESTRATOR, State.STOPPED, detail="it has no container"), BringUpContainer("orchestrator")),
        (down(ORCHESTRATOR, State.FAILED), BringUpContainer("orchestrator")),
        (down(ORCHESTRATOR, State.DEGRADED, detail="unhealthy"), RestartContainer("orchestrator")),
        (down(ORCHESTRATOR, State.DEGRADED, paused=True), UnpauseContainer("orchestrator")),
        # Its program got SIGSTOP; Docker calls it healthy for another 30 s.
        (replace(ORCHESTRATOR, healthy=False, answers=False), RestartContainer("orchestrator", hung=True)),
        (replace(ORCHESTRATOR, healthy=False, answers=False, restarts_left=0), None),
        (down(ORCHESTRATOR, State.DEGRADED, detail="unhealthy", restarts_left=0), None),
        (down(ORCHESTRATOR, State.BACKOFF), None),
        (down(ORCHESTRATOR, State.STOPPED, stopped_by_hand=True), None),
    ],
)
def test_recovery_starts_a_stopped_container_and_restarts_an_unhealthy_one_and_unpauses_a_paused_one(
    service: ServiceFacts, remedy: object
):
    assert only(service).remedy == remedy


@pytest.mark.parametrize("state", [State.READY, State.DEGRADED, State.STOPPED])
def test_recovery_leaves_a_container_alone_that_is_still_ending_after_a_stop_by_hand(state: State):
    """Docker reports it as running for up to 20 s, and a pass once recorded a remedy that was then refused.
    `Containers` forgets the stop when somebody starts the container, so a later hang is mended.
    """
    ending = replace(ORCHESTRATOR, state=state, healthy=False, answers=False, stopped_by_hand=True)
    assert (only(ending).found, only(ending).remedy) == (STOPPED_BY_HAND, None)
    started_again = replace(ORCHESTRATOR, healthy=False, answers=False)
    assert only(started_again).remedy == RestartContainer("orchestrator", hung=True)


def test_recovery_replaces_a_hung_child_although_it_was_once_stopped_by_hand():
    """It runs, so the stop is over; passes once left it hung for ever."""
    hung = replace(MLX, healthy=False, answers=False, stopped_by_hand=True)
    assert only(hung).remedy == ReplaceHungChild("mlx_server", 10)
    assert only(replace(hung, state=State.STOPPING)).remedy is None


def test_recovery_only_advises_on_a_worker_container_that_docker_calls_dead():
    """Docker restarts no dead container; each pass once tried it."""
    dead = ServiceFacts("worker", ControlledBy.DOCKER, State.FAILED, detail="is dead", container="bb")
    assert only(dead).remedy is None
    assert "`docker rm --force bb` removes it, and `vestal up` makes another one" in only(dead).advice


@pytest.mark.parametrize("state", [State.STOPPED, State.DEGRADED])
def test_recovery_restarts_each_worker_container_that_has_ended_or_is_unhealthy(state: State):
    """A hung or killed worker was once repaired by nobody, and the report said "all is well"."""
    worker = ServiceFacts("worker", ControlledBy.DOCKER, State.READY, healthy=True, container="aa")
    broken = replace(worker, state=state, healthy=False, detail="is broken", container="bb")
    facts = Facts((worker, broken))
    assert not facts.healthy
    assert [issue.remedy for issue in find_issues(facts)] == [RestartContainer("worker", container="bb")]
    [issue] = find_issues(Facts((replace(broken, restarts_left=0),)))
    assert "see `docker logs bb`; `vestal recover --reset` tries again at once" in issue.advice


def test_recovery_attempts_no_repair_of_a_container_while_the_docker_engine_is_down():
    issue = only(down(ORCHESTRATOR, State.STOPPED), docker_answers=False)
    assert issue.remedy is None
    assert "Docker engine" in issue.advice


def test_recovery_does_not_start_a_child_whose_port_another_program_holds_and_names_the_holder():
    port = PortFacts("mlx_server", 99, "port 11435 is held by nginx (PID 99); stop it with `kill 99`")
    issue = only(down(MLX, State.BACKOFF), ports=(port,))
    assert issue.remedy is None
    assert "nginx" in issue.advice


def test_recovery_ends_an_old_server_that_holds_the_port_before_it_starts_the_child():
    port = PortFacts("mlx_server", 99, "port 11435 is held by python", held_by_old_server=True)
    issues = find_issues(Facts(services=(down(MLX, State.STOPPED),), ports=(port,)))
    assert [issue.remedy for issue in issues] == [
        TerminateOldServer("mlx_server", 99),
        StartChild("mlx_server"),
    ]


def test_recovery_only_advises_on_a_service_that_vestal_watches_but_does_not_control():
    issue = only(down(OLLAMA, State.STOPPED, detail="start it with `ollama serve`"))
    assert issue.remedy is None
    assert "ollama serve" in issue.advice


OWNED = ServiceFacts(
    "ollama", ControlledBy.OWNER, State.READY, healthy=True, answers=True, pid=20, owner_plan="`brew …`"
)


@pytest.mark.parametrize(
    ("service", "remedy"),
    [
        (down(OWNED, State.STOPPED), ControlThroughOwner("ollama", "start", "`brew …`")),
        (
            replace(OWNED, state=State.DEGRADED, healthy=False, answers=False),
            ControlThroughOwner("ollama", "restart", "`brew …`"),
        ),
        # It lists no models, so it belongs to another user, and a restart changes nothing.
        (replace(OWNED, state=State.DEGRADED, healthy=False, answers=True, detail="lists no models"), None),
        (replace(OWNED, state=State.DEGRADED, healthy=False, answers=False, restarts_left=0), None),
        (down(OWNED, State.STOPPED, refusal="another user (eve) runs it"), None),
        (down(OWNED, State.STOPPED, stopped_by_hand=True), None),
        (down(OWNED, State.STARTING), None),
    ],
)
def test_recovery_asks_ollamas_service_manager_to_start_or_restart_it_only_if_allowed_and_useful(
    service: ServiceFacts, remedy: object
):
    issue = only(service)
    assert issue.remedy == remedy
    assert service.refusal in issue.advice
    assert issue.remedy or issue.advice or issue.resolves_itself


@pytest.mark.parametrize(
    "service", [down(OWNED, State.STOPPED), replace(OWNED, healthy=False, answers=False)]
)
def test_recovery_does_not_start_an_externally_managed_service_if_only_a_reboot_frees_memory(
    service: ServiceFacts,
):
    issues = find_issues(Facts(services=(replace(service, state=State.STOPPED),), headroom=NO_ROOM))
    assert all(issue.remedy is None for issue in issues)


def test_recovery_terminates_an_orphaned_ollama_runner_before_it_starts_ollama():
    managed = ServiceFacts("ollama", ControlledBy.SUPERVISOR, State.STOPPED)
    issues = find_issues(
        Facts(services=(MLX, managed, ORCHESTRATOR), orphans=(OrphanFacts("ollama", 77, 2**30),))
    )
    assert [issue.remedy for issue in issues] == [TerminateOrphan("ollama", 77), StartChild("ollama")]
    assert "1.0 GiB" in issues[0].found


def test_recovery_only_advises_on_an_orphaned_ollama_runner_of_another_user():
    (issue,) = find_issues(
        Facts(services=(OLLAMA,), orphans=(OrphanFacts("ollama", 77, may_terminate=False),))
    )
    assert issue.remedy is None
    assert "sudo kill 77" in issue.advice


STATES = st.sampled_from(list(State))
SERVICES = st.builds(
    ServiceFacts,
    name=st.sampled_from(["mlx_server", "orchestrator", "ollama"]),
    controlled_by=st.sampled_from(list(ControlledBy)),
    state=STATES,
    detail=st.text(max_size=5),
    healthy=st.booleans(),
    answers=st.sampled_from([None, True, False]),
    stopped_by_hand=st.booleans(),
    pid=st.sampled_from([None, 5]),
    paused=st.booleans(),
)


@given(SERVICES, st.booleans(), st.integers(0, 5), st.sampled_from([Headroom(), NO_ROOM]))
def test_recovery_never_repairs_a_service_that_is_healthy_or_given_up_or_that_a_person_stopped(
    service, engine, restarts, room
):
    service = replace(service, restarts_left=restarts)
    facts = Facts((service,), headroom=room, docker_answers=engine)
    for issue in find_issues(facts):
        assert issue.remedy or issue.advice or issue.resolves_itself, "an issue says what becomes of it"
        if issue.remedy is None:
            continue
        assert not (service.healthy and service.answers is not False)
        is_ending = service.controlled_by is ControlledBy.DOCKER or service.state in IS_DOWN
        assert not (service.stopped_by_hand and is_ending and not service.healthy)
        if service.controlled_by is ControlledBy.SUPERVISOR and service.answers is not False:
            assert service.state not in (State.OPEN, State.FAILED)
        assert service.controlled_by is not ControlledBy.NOBODY
