"""The recovery plan: what is healthy is not touched, what is given up is not forced."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host_agent.recovery.facts import (
    BringUp,
    EndOrphan,
    EndProcess,
    Facts,
    Kind,
    OrphanFacts,
    PortFacts,
    ReplaceHung,
    RestartContainer,
    ServiceFacts,
    StartChild,
    ThroughOwner,
    Unpause,
)
from host_agent.recovery.plan import ONLY_A_REBOOT, plan
from vestal.platform.memory_headroom import Headroom
from vestal.supervision import State

NO_ROOM = Headroom("80% is wired down", needs_reboot=True)
MLX = ServiceFacts("mlx_server", Kind.CHILD, State.READY, well=True, answers=True, pid=10)
ORCHESTRATOR = ServiceFacts("orchestrator", Kind.CONTAINER, State.READY, well=True)
OLLAMA = ServiceFacts("ollama", Kind.WATCHED, State.ABSENT, well=True)


def down(service: ServiceFacts, state: State, **changes) -> ServiceFacts:
    return replace(service, state=state, well=False, answers=None, pid=None, **changes)


def only(service: ServiceFacts, **facts):
    issues = plan(Facts(services=(service,), **facts))
    assert len(issues) == 1
    return issues[0]


def test_healthy_stack_has_no_issues():
    assert plan(Facts(services=(MLX, OLLAMA, ORCHESTRATOR))) == ()


def test_stopped_child_is_started():
    assert only(down(MLX, State.STOPPED)).remedy == StartChild("mlx_server")


def test_child_stopped_by_hand_is_left_with_the_remedy():
    issue = only(down(MLX, State.STOPPED, stopped_by_hand=True))
    assert issue.remedy is None
    assert "POST /services/mlx_server/start" in issue.left


@pytest.mark.parametrize("state", [State.OPEN, State.FAILED])
def test_child_given_up_is_left_and_says_how_to_try_again(state: State):
    issue = only(down(MLX, state, detail="exit code 78"))
    assert issue.remedy is None
    assert "exit code 78" in issue.left
    assert "vestal recover --reset" in issue.left


@pytest.mark.parametrize("state", [State.STARTING, State.STOPPING, State.BACKOFF])
def test_child_on_its_way_is_waited_for(state: State):
    issue = only(down(MLX, state))
    assert issue.remedy is None
    assert issue.comes_back


def test_child_that_runs_and_does_not_answer_is_replaced():
    assert only(replace(MLX, well=False, answers=False)).remedy == ReplaceHung("mlx_server", 10)


def test_hung_child_replaced_too_often_is_left():
    issue = only(replace(MLX, well=False, answers=False, restarts_left=0))
    assert issue.remedy is None
    assert "too often" in issue.left


@pytest.mark.parametrize("service", [down(MLX, State.STOPPED), replace(MLX, well=False, answers=False)])
def test_wired_memory_beyond_use_stops_restarts_and_says_reboot(service: ServiceFacts):
    issues = plan(Facts(services=(service,), headroom=NO_ROOM))
    assert [issue.service for issue in issues] == ["memory", "mlx_server"]
    assert not any(issue.remedy for issue in issues)
    assert all("reboot" in issue.left for issue in issues)
    assert (issues[0].event, issues[0].found) == (ONLY_A_REBOOT, NO_ROOM.shortage)


@pytest.mark.parametrize(
    ("service", "remedy"),
    [
        (down(ORCHESTRATOR, State.STOPPED, detail="it has no container"), BringUp("orchestrator")),
        (down(ORCHESTRATOR, State.FAILED), BringUp("orchestrator")),
        (down(ORCHESTRATOR, State.DEGRADED, detail="unhealthy"), RestartContainer("orchestrator")),
        (down(ORCHESTRATOR, State.DEGRADED, paused=True), Unpause("orchestrator")),
        # Its program was SIGSTOPped: Docker calls it healthy for another 30 s.
        (replace(ORCHESTRATOR, well=False, answers=False), RestartContainer("orchestrator", hung=True)),
        (replace(ORCHESTRATOR, well=False, answers=False, restarts_left=0), None),
        (down(ORCHESTRATOR, State.DEGRADED, detail="unhealthy", restarts_left=0), None),
        (down(ORCHESTRATOR, State.BACKOFF), None),
        (down(ORCHESTRATOR, State.STOPPED, stopped_by_hand=True), None),
    ],
)
def test_container_gets_the_remedy_of_its_state(service: ServiceFacts, remedy: object):
    assert only(service).remedy == remedy


def test_container_without_engine_waits_for_it():
    issue = only(down(ORCHESTRATOR, State.STOPPED), engine_answers=False)
    assert issue.remedy is None
    assert "Docker engine" in issue.left


def test_port_held_by_a_stranger_is_named_and_the_child_left_alone():
    port = PortFacts("mlx_server", 11435, 99, "port 11435 is held by nginx (PID 99); stop it with `kill 99`")
    issue = only(down(MLX, State.BACKOFF), ports=(port,))
    assert issue.remedy is None
    assert "nginx" in issue.left


def test_port_held_by_an_old_server_of_ours_is_freed_before_the_child_is_started():
    port = PortFacts("mlx_server", 11435, 99, "port 11435 is held by python", is_old_of_ours=True)
    issues = plan(Facts(services=(down(MLX, State.STOPPED),), ports=(port,)))
    assert [issue.remedy for issue in issues] == [EndProcess("mlx_server", 99), StartChild("mlx_server")]


def test_ollama_that_is_down_is_told_and_not_touched():
    issue = only(down(OLLAMA, State.STOPPED, detail="start it with `ollama serve`"))
    assert issue.remedy is None
    assert "ollama serve" in issue.left


OWNED = ServiceFacts("ollama", Kind.OWNED, State.READY, well=True, answers=True, pid=20, way="`brew …`")


@pytest.mark.parametrize(
    ("service", "remedy"),
    [
        (down(OWNED, State.STOPPED), ThroughOwner("ollama", "start", "`brew …`")),
        (
            replace(OWNED, state=State.DEGRADED, well=False, answers=False),
            ThroughOwner("ollama", "restart", "`brew …`"),
        ),
        # It lists no models: that is another user's, and no restart mends it.
        (replace(OWNED, state=State.DEGRADED, well=False, answers=True, detail="lists no models"), None),
        (replace(OWNED, state=State.DEGRADED, well=False, answers=False, restarts_left=0), None),
        (down(OWNED, State.STOPPED, refusal="another user (eve) runs it"), None),
        (down(OWNED, State.STOPPED, stopped_by_hand=True), None),
        (down(OWNED, State.STARTING), None),
    ],
)
def test_what_somebody_else_looks_after_is_healed_through_them_or_told(service: ServiceFacts, remedy: object):
    issue = only(service)
    assert issue.remedy == remedy
    assert service.refusal in issue.left
    assert issue.remedy or issue.left or issue.comes_back


@pytest.mark.parametrize("service", [down(OWNED, State.STOPPED), replace(OWNED, well=False, answers=False)])
def test_what_somebody_else_looks_after_is_left_where_only_a_reboot_frees_memory(service: ServiceFacts):
    issues = plan(Facts(services=(replace(service, state=State.STOPPED),), headroom=NO_ROOM))
    assert all(issue.remedy is None for issue in issues)


def test_runner_left_behind_goes_before_its_service_is_started():
    managed = ServiceFacts("ollama", Kind.CHILD, State.STOPPED)
    issues = plan(Facts(services=(MLX, managed, ORCHESTRATOR), orphans=(OrphanFacts("ollama", 77, 2**30),)))
    assert [issue.remedy for issue in issues] == [EndOrphan("ollama", 77), StartChild("ollama")]
    assert "1.0 GiB" in issues[0].found


def test_runner_of_another_user_is_told():
    (issue,) = plan(Facts(services=(OLLAMA,), orphans=(OrphanFacts("ollama", 77, mine=False),)))
    assert issue.remedy is None
    assert "sudo kill 77" in issue.left


STATES = st.sampled_from(list(State))
SERVICES = st.builds(
    ServiceFacts,
    name=st.sampled_from(["mlx_server", "orchestrator", "ollama"]),
    kind=st.sampled_from(list(Kind)),
    state=STATES,
    detail=st.text(max_size=5),
    well=st.booleans(),
    answers=st.sampled_from([None, True, False]),
    stopped_by_hand=st.booleans(),
    pid=st.sampled_from([None, 5]),
    paused=st.booleans(),
)


@given(SERVICES, st.booleans(), st.integers(0, 5), st.sampled_from([Headroom(), NO_ROOM]))
def test_no_plan_touches_what_is_well_or_given_up_or_stopped_by_hand(service, engine, restarts, room):
    service = replace(service, restarts_left=restarts)
    facts = Facts((service,), headroom=room, engine_answers=engine)
    for issue in plan(facts):
        assert issue.remedy or issue.left or issue.comes_back, "an issue says what becomes of it"
        if issue.remedy is None:
            continue
        assert not (service.well and service.answers is not False)
        assert not (service.stopped_by_hand and not service.well)
        if service.kind is Kind.CHILD and service.answers is not False:
            assert service.state not in (State.OPEN, State.FAILED)
        assert service.kind is not Kind.WATCHED
