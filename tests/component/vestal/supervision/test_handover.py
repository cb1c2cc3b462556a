"""A child's process is replaced by a successor that starts beside it, under traffic."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from host_agent.services.find_process import find_supervised
from tests.component.vestal.supervision.conftest import DEADLINE_S
from vestal.supervision import (
    ChildSpec,
    HandoverPolicy,
    HandoverRefused,
    ProbePolicy,
    ProbeResult,
    State,
    Supervisor,
    spawn,
    start_time,
    write_pid_file,
)
from vestal.supervision.handover.successor import SUCCEEDS_VARIABLE
from vestal.supervision.processes.exit_watch import wait_for_exit
from vestal.web import acceptor, listening_sockets

REPO = Path(__file__).resolve().parents[4]
STAND_IN = REPO / "tests" / "children" / "stand_in_gateway.py"
POLICY = HandoverPolicy(
    ready_timeout_s=DEADLINE_S, release_timeout_s=DEADLINE_S, linger_s=60, stop_timeout_s=1
)
# On a busy machine a health check may take longer than the quick policy allows, and would cause a restart.
PROBES = ProbePolicy(interval_s=0.05, timeout_s=DEADLINE_S)


async def _get(port: int, target: str) -> list[bytes]:
    """Return the lines of the body. Raises ConnectionError."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {target} HTTP/1.1\r\n\r\n".encode())
        answer = await reader.read()
    finally:
        writer.close()
    return answer.partition(b"\r\n\r\n")[2].splitlines()


async def _begin_stream(port: int, lines: int = 10) -> asyncio.Task[list[bytes]]:
    """Begin a stream, which does not end before `_let_streams_end`. Return the task that reads its lines."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /held?lines={lines} HTTP/1.1\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")  # it was accepted

    async def read() -> list[bytes]:
        try:
            return (await reader.read()).splitlines()
        finally:
            writer.close()

    return asyncio.ensure_future(read())


def _let_streams_end(home: Path) -> None:
    (home / "go_on").touch()


@pytest.fixture
def port(free_port: Callable[[], int]) -> int:
    return free_port()


@pytest.fixture
def gateway(spec, home: Path, port: int) -> ChildSpec:
    """The spec of the stand-in gateway."""

    async def probe(pid: int) -> ProbeResult:
        answered = json.loads((await _get(port, "/health"))[0])["pid"]
        return ProbeResult(answered == pid, f"PID {answered} answers")

    policy = {"stop_timeout_s": 2, "probe": PROBES}
    made = spec("exits.py", name="gateway", ready=probe, health=probe, policy=policy)
    env = {"VESTAL_HOME": str(home), "VESTAL_MLX_PORT": str(port), "PYTHONPATH": str(REPO)}
    return replace(
        made,
        command=(sys.executable, str(STAND_IN)),
        env=env,
        pid_file=home / "gateway.json",
        log_path=home / "gateway.log",
        handover=POLICY,
    )


async def _gone(supervisor: Supervisor, supervisors) -> None:
    """Drop the supervisor as if its agent were killed. The next supervisor finds its processes."""
    await supervisor.detach()
    supervisors.made.remove(supervisor)


def _misbehave(home: Path, **how: object) -> None:
    (home / "stand_in.json").write_text(json.dumps(how))


async def test_handover_starts_a_new_process_that_serves_while_the_old_one_finishes_its_stream(
    supervisors, gateway, port, home, eventually
):
    supervisor = await supervisors.up(gateway)
    old = supervisor.status()["gateway"].process_pid
    stream = await _begin_stream(port)
    await supervisor.hand_over_child("gateway")
    await supervisor.wait_for("gateway", {State.READY}, DEADLINE_S)
    status = supervisor.status()["gateway"]
    assert status.process_pid != old
    assert status.restart_count == 0
    assert json.loads((home / "gateway.json").read_text())["pid"] == status.process_pid
    assert start_time(old) is not None
    assert (await _get(port, "/stream?lines=1"))[0].endswith(b" %d" % status.process_pid)
    _let_streams_end(home)
    assert [line.split() for line in await stream] == [[b"%d" % n, b"%d" % old] for n in range(10)]
    await supervisors.wait_for_event("predecessor_ended")
    assert sorted(path.name for path in home.glob("*.json")) == ["gateway.json"]


async def test_three_handovers_under_traffic_refuse_no_connection(supervisors, gateway, port, tmp_path):
    listening = acceptor.bind("127.0.0.1", port)

    class Launcher:
        async def launch(self, spec: ChildSpec):
            env = {**(spec.env or {}), listening_sockets.FDS_VARIABLE: str(listening.fileno())}
            return await spawn(replace(spec, env=env), pass_fds=[listening.fileno()])

    supervisor = await supervisors.up(replace(gateway, launcher=Launcher()))
    served: set[bytes] = set()
    stop = asyncio.Event()

    async def ask() -> None:
        while not stop.is_set():
            served.add((await _get(port, "/stream?lines=1"))[0].split()[1])

    clients = [asyncio.ensure_future(ask()) for _ in range(4)]
    for _ in range(3):
        await supervisor.hand_over_child("gateway")
        await supervisor.wait_for("gateway", {State.READY}, DEADLINE_S)
    stop.set()
    await asyncio.gather(*clients)  # raises ConnectionRefusedError if one was refused
    assert len(served) >= 3
    listening.close()


@pytest.mark.parametrize(
    ("successor", "why"), [("exits", "there is no such model"), ("is silent", "not ready within 0.5 s")]
)
async def test_handover_to_a_process_that_cannot_serve_is_refused_and_the_old_one_keeps_serving(
    supervisors, gateway, port, home, successor, why
):
    policy = replace(POLICY, ready_timeout_s=0.5) if successor == "is silent" else POLICY
    supervisor = await supervisors.up(replace(gateway, handover=policy))
    old = supervisor.status()["gateway"].process_pid
    _misbehave(home, successor=successor)
    with pytest.raises(HandoverRefused, match=why):
        await supervisor.hand_over_child("gateway")
    assert supervisor.status()["gateway"].process_pid == old
    assert (await _get(port, "/stream?lines=1"))[0].endswith(b" %d" % old)
    assert sorted(path.name for path in home.glob("gateway*.json")) == ["gateway.json"]


async def test_handover_kills_the_old_process_if_it_does_not_hand_over_in_time(
    supervisors, gateway, port, home
):
    _misbehave(home, hands_over=False)
    supervisor = await supervisors.up(replace(gateway, handover=replace(POLICY, release_timeout_s=0.5)))
    old = supervisor.status()["gateway"].process_pid
    await supervisor.hand_over_child("gateway")
    await supervisor.wait_for("gateway", {State.READY}, DEADLINE_S)
    assert start_time(old) is None
    assert supervisors.events_named("predecessor_killed")


async def test_handover_whose_new_process_dies_starts_another_without_breaking_a_stream(
    supervisors, gateway, port, home
):
    supervisor = await supervisors.up(gateway)
    old = supervisor.status()["gateway"].process_pid
    stream = await _begin_stream(port)
    _misbehave(home, successor="dies when it is ready")
    handing = asyncio.ensure_future(supervisor.hand_over_child("gateway"))
    await supervisors.wait_for_event("child_exited")
    (home / "stand_in.json").unlink()
    await handing
    await supervisor.wait_for("gateway", {State.READY}, DEADLINE_S)
    assert supervisor.status()["gateway"].process_pid != old
    _let_streams_end(home)
    assert len(await stream) == 10


async def test_stop_of_a_child_after_a_handover_also_ends_the_old_process(
    supervisors, gateway, port, home, is_running
):
    supervisor = await supervisors.up(gateway)
    old = supervisor.status()["gateway"].process_pid
    stream = await _begin_stream(port)
    await supervisor.hand_over_child("gateway")
    await supervisor.stop_child("gateway")
    assert not is_running(old)
    assert list(home.glob("gateway*.json")) == []
    stream.cancel()


@pytest.mark.parametrize("asked", [True, False], ids=["after the request", "before the request"])
async def test_next_supervisor_completes_a_handover_that_the_previous_supervisor_left_unfinished(
    supervisors, gateway, port, home, is_running, asked
):
    """The first supervisor is gone in the middle of a handover, like an agent that was killed."""
    first = await supervisors.up(gateway)
    old = first.status()["gateway"].process_pid
    stream = await _begin_stream(port)
    if asked:
        await first.hand_over_child("gateway")
        await _gone(first, supervisors)
    else:
        # What is on disk just before the request: both are named, and the predecessor serves.
        await _gone(first, supervisors)
        (home / "gateway.json").rename(home / f"gateway.predecessor-{old}.json")
    second = await supervisors.up(gateway)
    assert second.status()["gateway"].process_pid != old
    _let_streams_end(home)
    assert len(await stream) == 10
    await supervisors.wait_for_event("predecessor_ended")
    assert not is_running(old)
    assert sorted(path.name for path in home.glob("*.json")) == ["gateway.json"]


async def test_next_supervisor_starts_a_new_child_instead_of_adopting_one_that_has_handed_over(
    supervisors, gateway, port, home
):
    """Earlier, after agent and gateway were killed, an older gateway that served its last clients was adopted
    as the gateway. The older one accepts no requests, so nothing was served for 90 s.
    """
    first = await supervisors.up(gateway)
    old = first.status()["gateway"].process_pid
    stream = await _begin_stream(port)
    await first.hand_over_child("gateway")
    successor = first.status()["gateway"].process_pid
    await _gone(first, supervisors)
    os.kill(successor, signal.SIGKILL)
    await asyncio.to_thread(os.waitpid, successor, 0)  # it is no child of the next agent
    second = await supervisors.up(replace(gateway, find=find_supervised))
    assert second.status()["gateway"].process_pid not in (old, successor)
    assert second.status()["gateway"].restart_count == 0
    _let_streams_end(home)
    assert len(await stream) == 10


async def test_next_supervisor_keeps_the_old_process_and_kills_the_new_one_of_a_handover_interrupted_early(
    supervisors, gateway, home, is_running, eventually
):
    first = await supervisors.up(gateway)
    old = first.status()["gateway"].process_pid
    await _gone(first, supervisors)
    _misbehave(home, successor="is silent")
    left = await spawn(replace(gateway, pid_file=None), extra_env={SUCCEEDS_VARIABLE: str(old)})
    left.detach()
    write_pid_file(home / f"gateway.successor-{left.pid}.json", left.identity)
    second = await supervisors.up(gateway)
    assert second.status()["gateway"].process_pid == old
    await eventually(lambda: not is_running(left.pid))
    assert sorted(path.name for path in home.glob("gateway*.json")) == ["gateway.json"]


async def test_child_that_died_while_the_agent_replaced_itself_is_reaped_and_reported_with_its_code(
    supervisors, spec, home
):
    """The agent replaces itself in its own process; a child that dies meanwhile stays a zombie."""
    child = spec("exits.py", 7, name="gateway", pid_file=home / "gateway.json")
    handle = await spawn(child)
    write_pid_file(home / "gateway.json", handle.identity)
    handle.detach()
    await wait_for_exit(handle.pid)
    supervisor = supervisors.make(child)
    await supervisor.start()
    exited = await supervisors.wait_for_event("child_exited")
    assert (exited.fields["pid"], exited.fields["code"]) == (handle.pid, 7)
    with pytest.raises(ChildProcessError):
        os.waitpid(handle.pid, os.WNOHANG)  # noqa: ASYNC222 - it returns at once
