"""Every state of every service has a sentence that agrees with it, because both come from one observation.

Each row of a table has an observation, and the state and sentence that a person then reads.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from host_agent.services import (
    AGENT,
    DOCKER,
    IN_CONTAINERS,
    MLX_ENGINE,
    MLX_SERVER,
    NAMES,
    NIGHTLY,
    OLLAMA,
    ORCHESTRATOR,
)
from host_agent.services.docker import container_status
from host_agent.services.docker.docker_engine import DockerObservation
from host_agent.services.http_probe import Reply
from host_agent.services.mlx.answers import as_it_answers, judge_gateway, read_engine_status
from host_agent.services.ollama.answers import ModelProbeResult, ServerInfo
from host_agent.services.ollama.ownership import Owner, OwnerKind
from host_agent.services.ollama.status import Observation
from host_agent.services.ollama.status import service_status as ollama_row
from host_agent.services.orchestrator.mode import Mode, ModeCause, ModeDecision
from host_agent.services.service_status import Failure, ServiceStatus
from host_agent.services.status.rows import EngineReport, Look, rows
from vestal.supervision import DOWN, UP, ChildStatus, State

NONE_FOUND = "No Docker engine was found on this machine."
DECIDED_WITHOUT = ModeDecision(Mode.NATIVE, NONE_FOUND.rstrip("."), ModeCause.NO_ENGINE)
BY_SETTING = ModeDecision(Mode.NATIVE, "orchestrator.mode is native")
NO_COMPOSE = ModeDecision(Mode.NATIVE, "`docker compose` is missing", ModeCause.NO_COMPOSE)
NO_IMAGE = ModeDecision(Mode.NATIVE, "its image is not built", ModeCause.NO_IMAGE)
IN_DOCKER = ModeDecision(Mode.DOCKER, "Docker engine 27.1 answers", ModeCause.POSSIBLE)
OFF = ModeDecision(Mode.OFF, "orchestrator.mode is off")
UP_27 = DockerObservation("27.1")
AWAY = DockerObservation(error=NONE_FOUND, failures=2)
READY_ENGINE = ServiceStatus(State.READY, process_pid=8)
READY_CHILD = ChildStatus(State.READY, 7)


def look(decision: ModeDecision = DECIDED_WITHOUT, **known: Any) -> Look:
    """Return an observation of a healthy machine, with the fields in `known` replaced."""
    children = dict.fromkeys((MLX_SERVER, *IN_CONTAINERS), READY_CHILD) | known.pop("children", {})
    well: dict[str, Any] = {
        "agent": ServiceStatus(State.READY, 1, detail="its watchdog (PID 9) restarts it when it fails"),
        "children": children,
        "ollama": ServiceStatus(State.ABSENT, detail="not installed", expected=False),
        "docker": UP_27 if decision.mode is Mode.DOCKER else AWAY,
        "decision": decision,
        "mlx_port": 11435,
        "engine": READY_ENGINE,
        "containers": {name: _container("running", "healthy") for name in IN_CONTAINERS},
    }
    return Look(**(well | known))


def row(service: str, decision: ModeDecision = DECIDED_WITHOUT, **known: Any) -> ServiceStatus:
    return rows(look(decision, **known))[service]


# --- the Docker engine --------------------------------------------------------------------------------------

START_DOCKER = "start Docker Desktop, or on Linux run `sudo systemctl start docker`"
MOVE_IN = "`vestal down` and `vestal up` move it into containers, without its tasks so far"
UNUSED = "Docker engine 27.1 answers and is not used: the orchestrator"
AWAY_AND_UNUSED = f"{NONE_FOUND.rstrip('.')}; it is not needed: the orchestrator"


@pytest.mark.parametrize(
    ("decision", "docker", "state", "sentence"),
    [
        (IN_DOCKER, UP_27, State.READY, ""),
        (IN_DOCKER, AWAY, State.STOPPED, f"{NONE_FOUND.rstrip('.')}; {START_DOCKER}"),
        # An engine that came up after the agent was `ready` beside "No Docker engine was found".
        (
            DECIDED_WITHOUT,
            UP_27,
            State.READY,
            f"{UNUSED} runs natively, because no Docker engine answered when the agent started; {MOVE_IN}",
        ),
        (
            DECIDED_WITHOUT,
            AWAY,
            State.ABSENT,
            f"{AWAY_AND_UNUSED} runs natively, because no Docker engine answered when the agent started",
        ),
        (
            NO_COMPOSE,
            UP_27,
            State.READY,
            f"{UNUSED} runs natively, because `docker compose` was missing when the agent started; {MOVE_IN}",
        ),
        (
            NO_IMAGE,
            UP_27,
            State.READY,
            f"{UNUSED} runs natively, because its image was not built when the agent started; {MOVE_IN}",
        ),
        (BY_SETTING, UP_27, State.READY, f"{UNUSED} runs natively, as orchestrator.mode says"),
        (BY_SETTING, AWAY, State.ABSENT, f"{AWAY_AND_UNUSED} runs natively, as orchestrator.mode says"),
        (OFF, UP_27, State.READY, f"{UNUSED} is switched off (orchestrator.mode)"),
        (OFF, AWAY, State.ABSENT, f"{AWAY_AND_UNUSED} is switched off (orchestrator.mode)"),
    ],
)
def test_status_row_of_docker_gives_its_state_and_a_sentence_that_explains_it(
    decision, docker, state, sentence
):
    shown = row(DOCKER, decision, docker=docker)
    assert (shown.state, shown.sentence) == (state, sentence)
    assert shown.expected == (decision is IN_DOCKER)
    assert shown.health_check_failures == (2 if decision is IN_DOCKER and docker is AWAY else 0)


# --- the children of the agent, and the engine of its gateway -----------------------------------------------

KILLED = "killed by SIGKILL"
AGAIN = "it starts again by itself after a delay"
TRIED = "it is tried again when its breaker allows; `vestal recover --reset` tries at once"
CORRECT = "correct the cause, then run `vestal up`"
UNKNOWN = "why is not known any more; `vestal logs` has its last lines"

CHILD_ROWS = [
    (ChildStatus(State.STOPPED), ""),
    # An earlier fault: the cause of a breaker opened before a stop was shown as the reason of `stopped`.
    (
        ChildStatus(State.STOPPED, detail=KILLED, stopped_by_hand=True),
        "stopped by hand; `vestal up` starts it again",
    ),
    (ChildStatus(State.STARTING, 7), ""),
    (
        ChildStatus(State.STARTING, 7, detail="http://x/health: refused"),
        "not ready yet: http://x/health: refused",
    ),
    # An earlier fault: the last process's death was shown as the work of the new process.
    (ChildStatus(State.STARTING, 7, last_end=KILLED), f"before that: {KILLED}"),
    (
        ChildStatus(State.STARTING, 7, detail="loading", last_end=KILLED),
        f"not ready yet: loading; before that: {KILLED}",
    ),
    (READY_CHILD, ""),
    # An earlier fault: the reason of a failed check was shown as the detail of `ready`.
    (
        ChildStatus(State.READY, 7, health_check_failures=1, detail="no answer within 3 s"),
        "the last health check failed: no answer within 3 s",
    ),
    (ChildStatus(State.READY, 7, health_check_failures=2), "the last 2 health checks failed: no answer"),
    # The saved state says `stopped by hand`, but the child is ready: the later start could not be saved.
    (ChildStatus(State.READY, 7, stopped_by_hand=True), ""),
    (ChildStatus(State.BUSY, 7, detail="busy: 31 s of CPU time"), "busy: 31 s of CPU time"),
    (ChildStatus(State.DEGRADED, 7, detail="its log is full"), "its log is full"),
    (ChildStatus(State.DEGRADED, 7), "it reports that it works with restrictions, without a reason"),
    (
        ChildStatus(State.STOPPING, 7, cause="restarted by hand"),
        "its process was asked to end: restarted by hand",
    ),
    (
        ChildStatus(State.STOPPING, 7, cause="it hangs", detail="PID 7 does not end on SIGKILL"),
        "PID 7 does not end on SIGKILL",
    ),
    (ChildStatus(State.BACKOFF, detail=KILLED, last_end=KILLED), f"{KILLED}; {AGAIN}"),
    (
        ChildStatus(State.OPEN, detail="5 restarts within 300 s; last: exit code 1"),
        f"5 restarts within 300 s; last: exit code 1; {TRIED}",
    ),
    # An earlier fault: after a restart of the agent, an open breaker had no sentence.
    (ChildStatus(State.OPEN, circuit_breaker_state="open"), f"{UNKNOWN}; {TRIED}"),
    (
        ChildStatus(State.FAILED, detail="exit code 78: vestal: no such model"),
        f"exit code 78: vestal: no such model; {CORRECT}",
    ),
]


@pytest.mark.parametrize("service", [MLX_SERVER, ORCHESTRATOR, NIGHTLY])
@pytest.mark.parametrize(("child", "sentence"), CHILD_ROWS)
def test_status_row_of_a_child_process_gives_its_state_and_a_sentence_that_explains_it(
    service: str, child: ChildStatus, sentence: str
):
    shown = row(service, children={service: child})
    assert (shown.state, shown.sentence) == (child.state, sentence)


def test_cases_of_the_status_row_test_include_every_state_that_a_child_process_can_have():
    assert {child.state for child, _ in CHILD_ROWS} == set(State) - {State.ABSENT}


@pytest.mark.parametrize(("child", "sentence"), CHILD_ROWS)
def test_status_row_of_the_engine_has_the_sentence_for_the_state_that_its_gateway_reports(
    child: ChildStatus, sentence: str
):
    """The gateway sends its engine's ChildStatus as JSON; the row has the same words as from the ChildStatus
    itself.
    """
    about = replace(child, stopped_by_hand=False, next_trial_in_s=41.5).as_json() | {"pid": child.process_pid}
    engine = read_engine_status(Reply(200, {"status": "ok", "engine": about}))
    shown = row(MLX_ENGINE, engine=engine)
    assert (shown.state, shown.process_pid) == (child.state, child.process_pid)
    assert shown.next_trial_in_s == 41.5
    if not child.stopped_by_hand:
        assert shown.sentence == sentence


@pytest.mark.parametrize("gateway", sorted(State))
@pytest.mark.parametrize("reported", [None, *sorted(UP | {State.OPEN, State.STOPPED})])
def test_engine_status_row_shows_stopped_if_its_gateway_is_down_and_else_the_state_that_the_gateway_reports(
    gateway: State, reported: State | None
):
    engine = None if reported is None else ServiceStatus(reported, process_pid=8, detail=f"is {reported}")
    shown = row(MLX_ENGINE, children={MLX_SERVER: ChildStatus(gateway, 7)}, engine=engine)
    if gateway in DOWN:
        assert (shown.state, shown.detail) == (State.STOPPED, f"its gateway is {gateway}")
    elif gateway is State.STARTING and reported in (None, State.STOPPED):
        assert (shown.state, shown.detail) == (State.STARTING, "its gateway is starting")
    elif reported is None:
        assert (shown.state, shown.detail) == (State.STOPPED, "its gateway does not answer")
    else:
        assert (shown.state, shown.detail) == (reported, f"is {reported}")


def test_status_row_of_the_engine_behind_a_busy_gateway_shows_what_that_gateway_last_reported():
    """Earlier, the engine was shown as stopped while the gateway parsed a body of 30 MB."""
    busy = {MLX_SERVER: ChildStatus(State.BUSY, 7)}
    shown = row(MLX_ENGINE, children=busy, engine=None, reported=EngineReport(7, READY_ENGINE))
    assert (shown.state, shown.process_pid) == (State.READY, 8)
    assert shown.sentence == "its gateway does not answer now; this is what it last reported"
    other = row(MLX_ENGINE, children=busy, engine=None, reported=EngineReport(6, READY_ENGINE))
    assert (other.state, other.sentence) == (State.STOPPED, "its gateway does not answer")


def test_status_row_of_the_gateway_has_the_state_of_its_newest_health_answer():
    """Earlier, for up to 10 s the gateway was shown as "busy: its engine is being replaced" while the engine
    worked.
    """
    probed = ChildStatus(State.BUSY, 7, detail="its engine is being replaced")
    shown = as_it_answers(probed, Reply(200, {"status": "ok", "pid": 7}))
    assert (shown.state, shown.detail) == (State.READY, "")
    assert as_it_answers(probed, Reply(200, {"status": "ok", "pid": 8})) == probed, "another gateway answers"
    failing = replace(probed, health_check_failures=1)
    assert as_it_answers(failing, Reply(200, {"status": "ok", "pid": 7})) == failing
    ending = ChildStatus(State.STOPPING, 7)
    assert as_it_answers(ending, Reply(200, {"status": "ok", "pid": 7})) == ending


def test_status_row_of_a_busy_engine_names_the_number_of_running_requests():
    engine = ServiceStatus(State.BUSY, process_pid=8, extra={"requests": {"running": 2}})
    assert row(MLX_ENGINE, engine=engine).sentence == "it works on 2 requests"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("ok", ""),
        ("starting", "its engine is starting; requests wait for it"),
        ("recovering", "its engine is being replaced; requests wait for the next one"),
        ("draining", "it finishes its last requests, and then ends"),
        ("failed", "five starts failed"),
    ],
)
def test_gateway_health_probe_has_a_sentence_for_every_http_status(status: str, words: str):
    reply = Reply(200, {"status": status, "engine": {"state": "open", "detail": "five starts failed"}})
    assert judge_gateway(reply, 7).detail == words


def test_status_row_of_the_gateway_names_older_gateways_that_still_serve():
    shown = row(MLX_SERVER, predecessors=(4, 5))
    assert shown.sentence == "until their clients have their answers, older ones run too: PID 4, 5"


# --- Ollama -------------------------------------------------------------------------------------------------

INFO = ServerInfo("0.32.5", ("a",))
MINE = Owner(OwnerKind.OURS, pid=7)
BREW = Owner(OwnerKind.BREW, "homebrew.mxcl.ollama", 900, "ada")
BY_BREW = "looked after by Homebrew's services (homebrew.mxcl.ollama)"
SILENT = ModelProbeResult(False, "no answer within 3 s")
NO_CHILD = ChildStatus(State.STOPPED)


@pytest.mark.parametrize(
    ("seen", "child", "state", "sentence"),
    [
        (
            Observation(MINE, INFO),
            ChildStatus(State.READY, 7),
            State.READY,
            "version 0.32.5, 1 model; started by Vestal",
        ),
        (
            Observation(MINE, None, SILENT),
            ChildStatus(State.READY, 7),
            State.DEGRADED,
            "does not answer (no answer within 3 s); started by Vestal",
        ),
        # The server ended after the observation: `stopped` must have its own words, not those of a running
        # server.
        (
            Observation(MINE, INFO, stopped_by_hand=True),
            NO_CHILD,
            State.STOPPED,
            "stopped by hand; `vestal up` starts it again",
        ),
        (
            Observation(MINE, INFO, instructions="the next recovery pass starts it", url="http://o"),
            NO_CHILD,
            State.STOPPED,
            "installed but not answering at http://o; the next recovery pass starts it",
        ),
        (
            Observation(MINE, INFO),
            ChildStatus(State.OPEN, detail="exit code 1: listen tcp"),
            State.OPEN,
            f"exit code 1: listen tcp; {TRIED}",
        ),
        (
            Observation(MINE, INFO),
            ChildStatus(State.BACKOFF, detail=KILLED),
            State.BACKOFF,
            f"{KILLED}; {AGAIN}",
        ),
        (
            Observation(MINE, INFO),
            ChildStatus(State.STOPPING, 7, cause="stop by hand"),
            State.STOPPING,
            "its process was asked to end: stop by hand",
        ),
        (Observation(Owner(), None), ChildStatus(State.STARTING, 7), State.STARTING, ""),
        (
            Observation(Owner(), None),
            ChildStatus(State.FAILED, detail="exit code 78"),
            State.FAILED,
            f"exit code 78; {CORRECT}",
        ),
        (Observation(BREW, INFO), NO_CHILD, State.READY, f"version 0.32.5, 1 model; {BY_BREW}"),
        (
            Observation(BREW, INFO, ModelProbeResult(True, "busy: a token waits", busy=True)),
            NO_CHILD,
            State.BUSY,
            "busy: a token waits",
        ),
        (
            Observation(BREW, None, SILENT),
            NO_CHILD,
            State.DEGRADED,
            f"does not answer (no answer within 3 s); {BY_BREW}",
        ),
        (Observation(Owner(), installed=False), NO_CHILD, State.ABSENT, "not installed"),
        (
            Observation(Owner(), installed=False, required=True),
            NO_CHILD,
            State.STOPPED,
            "not installed, and ollama.manage is always; install it (https://ollama.com/download), "
            "or set VESTAL_OLLAMA__MANAGE=auto",
        ),
    ],
)
def test_status_row_of_ollama_gives_its_state_and_a_sentence_that_explains_it(seen, child, state, sentence):
    shown = row(OLLAMA, ollama=ollama_row(seen, child))
    assert (shown.state, shown.sentence) == (state, sentence)


# --- containers ---------------------------------------------------------------------------------------------

DIED = "05:11: SIGKILL, cause unknown (exit code 137)"


@pytest.mark.parametrize(
    ("status", "health", "state", "sentence"),
    [
        ("running", "", State.READY, ""),
        ("running", "healthy", State.READY, ""),
        (
            "running",
            "starting",
            State.STARTING,
            "its container runs, and its health check has not succeeded yet: no answer",
        ),
        (
            "running",
            "unhealthy",
            State.DEGRADED,
            "its container runs, and its health check fails: no answer; a recovery pass restarts it",
        ),
        ("paused", "", State.DEGRADED, "its container is paused; a recovery pass resumes it"),
        (
            "restarting",
            "",
            State.BACKOFF,
            f"its container ended, and Docker is about to start it again; its last run ended at {DIED}",
        ),
        ("removing", "", State.STOPPING, f"Docker is removing its container; its last run ended at {DIED}"),
        (
            "created",
            "",
            State.STOPPED,
            f"its container was made and never started; its last run ended at {DIED}; "
            "a recovery pass starts it",
        ),
        # Docker keeps the last result of the health check of a container that has ended.
        (
            "exited",
            "unhealthy",
            State.STOPPED,
            f"its container has ended; its last run ended at {DIED}; a recovery pass starts it",
        ),
        (
            "dead",
            "",
            State.FAILED,
            "Docker could not remove its container and calls it dead; "
            f"its last run ended at {DIED}; "
            "`docker rm --force` removes it, and `vestal up` makes another one",
        ),
        ("odd", "", State.STOPPED, f"its container is odd; its last run ended at {DIED}"),
    ],
)
def test_status_row_of_a_container_gives_its_state_and_a_sentence_that_explains_it(
    status: str, health: str, state: State, sentence: str
):
    shown = row(ORCHESTRATOR, IN_DOCKER, containers={ORCHESTRATOR: _container(status, health, DIED)})
    assert (shown.state, shown.sentence) == (state, sentence)
    is_up = state in (State.READY, State.STARTING) or status == "running"
    assert (shown.uptime_s > 0, shown.health_check_failures > 0) == (is_up, is_up)
    by_hand = _container(status, health, DIED, stopped_by_hand=True)
    assert (by_hand.sentence == "stopped by hand; `vestal up` starts it again") == (state is State.STOPPED)


def test_status_row_of_a_container_that_keeps_dying_mentions_the_last_death_while_it_works():
    shown = _container("running", "healthy", DIED, is_recurring=True)
    assert shown.sentence == f"it works again; its last run ended at {DIED}"


def test_docker_engine_that_reports_its_version_and_does_not_list_containers_counts_as_no_answer():
    """A pass once took its containers for stopped, and waited 9 minutes for `docker compose up`."""
    shown = row(DOCKER, IN_DOCKER, containers="The Docker engine gave no answer within 3 s.")
    assert (shown.state, shown.health_check_failures) == (State.STOPPED, 1)
    assert shown.sentence == f"The Docker engine gave no answer within 3 s; {START_DOCKER}"


@pytest.mark.parametrize("service", IN_CONTAINERS)
def test_status_row_of_a_container_without_docker_is_stopped_with_the_reason(service: str):
    shown = row(service, IN_DOCKER, docker=AWAY)
    assert (shown.state, shown.sentence) == (State.STOPPED, NONE_FOUND)
    shown = row(service, IN_DOCKER, containers="The Docker engine gave no answer within 3 s.")
    assert (shown.state, shown.sentence) == (State.STOPPED, "The Docker engine gave no answer within 3 s.")
    shown = row(service, IN_DOCKER, containers={})
    assert (shown.state, shown.sentence) == (
        State.STOPPED,
        "it has no container; `vestal recover --once` makes one",
    )


@pytest.mark.parametrize("service", IN_CONTAINERS)
def test_status_row_of_a_switched_off_orchestrator_shows_the_state_absent_and_the_reason(service: str):
    shown = row(service, OFF)
    assert (shown.state, shown.expected, shown.healthy) == (State.ABSENT, False, True)
    assert shown.sentence == "switched off (orchestrator.mode)"


MISTAKE = "agents.yaml:7: agents.reader.promt is an unknown key; there are: prompt, role."


@pytest.mark.parametrize("decision", [DECIDED_WITHOUT, IN_DOCKER])
@pytest.mark.parametrize("state", [State.FAILED, State.BACKOFF, State.STOPPED])
def test_status_row_of_the_orchestrator_names_the_error_in_agents_yaml(decision: ModeDecision, state: State):
    broken = ServiceStatus(state, detail="exit code 78")
    known: dict[str, Any] = {
        "children": {ORCHESTRATOR: ChildStatus(state, detail="exit code 78")},
        "containers": {ORCHESTRATOR: broken, NIGHTLY: broken},
        "mistake_in_agents_file": MISTAKE,
    }
    shown = row(ORCHESTRATOR, decision, **known)
    assert (shown.state, shown.detail) == (state, MISTAKE)
    assert row(ORCHESTRATOR, mistake_in_agents_file=MISTAKE).detail == "", "it works with the file before"


# --- every row ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decision", [DECIDED_WITHOUT, IN_DOCKER, OFF])
def test_status_rows_in_every_mode_contain_every_service_with_its_parent(decision: ModeDecision):
    found = rows(look(decision))
    assert tuple(found) == NAMES
    around = DOCKER if decision is IN_DOCKER else AGENT
    assert {name: shown.parent for name, shown in found.items()} == {
        AGENT: None,
        MLX_SERVER: AGENT,
        MLX_ENGINE: MLX_SERVER,
        OLLAMA: AGENT,
        DOCKER: AGENT,
        ORCHESTRATOR: around,
        NIGHTLY: around,
    }


def test_status_of_a_breaker_opened_under_an_earlier_agent_has_its_reason_from_the_journal():
    failure = Failure(12.0, "Its process (PID 3) ended: exit code 1.")
    opened = ChildStatus(State.OPEN, circuit_breaker_state="open", next_trial_in_s=41.234)
    shown = row(MLX_SERVER, children={MLX_SERVER: opened}, failures={MLX_SERVER: failure})
    assert shown.sentence == f"Its process (PID 3) ended: exit code 1; {TRIED}"
    answer = shown.as_json()
    assert answer["last_failure"] == {"ts": 12.0, "sentence": failure.sentence}
    assert (answer["next_trial_in_s"], answer["circuit_breaker_state"]) == (41.2, "open")


def test_every_sentence_of_a_status_row_is_complete_and_not_truncated():
    sentences = [sentence for _, sentence in CHILD_ROWS] + [row(DOCKER, IN_DOCKER, docker=AWAY).sentence]
    assert not [each for each in sentences if re.search(r"\. [a-z]|\s$|: ?$|;;|\.;", each)]


def _container(status: str, health: str = "", last_death: str = "", **more: Any) -> ServiceStatus:
    state = {
        "Status": status,
        "Running": status in ("running", "paused", "restarting"),
        "Pid": 5,
        "StartedAt": "2026-11-21T03:57:12.103930451Z",
        "Health": {"Status": health, "FailingStreak": 3, "Log": [{"Output": "no answer"}]},
    }
    return container_status.service_status({"Id": "1", "State": state}, 1.9e9, last_death, **more)
