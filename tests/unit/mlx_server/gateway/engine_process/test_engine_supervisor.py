"""The engine's supervisor in a gateway that stops, and in one whose installed program has changed."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlx_server.gateway.engine_process.supervisor import EngineSupervisor
from mlx_server.gateway.requests.dispatcher import Dispatcher
from mlx_server.gateway.requests.table.engine_wait import RequestLimits
from mlx_server.gateway.requests.table.request_table import RequestTable
from mlx_server.gateway.telemetry import Telemetry
from mlx_server.protocol import Hello
from mlx_server.protocol.digest import EXIT_OTHER_PROTOCOL
from vestal.config import load
from vestal.supervision import ChildStatus, Event, FakeClock, State, StopTimeout, Supervisor


async def test_stop_of_an_engine_that_does_not_end_on_sigkill_is_reported_and_raises_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The exception once kept the gateway from closing its sockets and from exiting with 0."""

    async def stop(_supervisor: Supervisor) -> None:
        raise StopTimeout("mlx_engine (PID 1) did not end, not even on SIGKILL")

    monkeypatch.setattr(Supervisor, "stop", stop)
    config = load({"VESTAL_HOME": str(tmp_path / "home"), "HOME": str(tmp_path)}, tmp_path)
    clock, log = FakeClock(), io.StringIO()
    telemetry = Telemetry(clock.wall, log)
    dispatcher = Dispatcher(RequestTable(RequestLimits(1, 1, 60)), clock, telemetry)
    await EngineSupervisor(config, dispatcher, telemetry, clock, ("true",)).stop()
    (event,) = [json.loads(line) for line in log.getvalue().splitlines()]
    assert event["event"] == "engine_not_stopped" and "PID 1" in event["cause"]


class Supervised:
    """An engine's supervisor that is told of exits, without any process."""

    def __init__(self, tmp_path: Path) -> None:
        config = load({"VESTAL_HOME": str(tmp_path / "home"), "HOME": str(tmp_path)}, tmp_path)
        self.clock, self.log = FakeClock(), io.StringIO()
        self.telemetry = Telemetry(self.clock.wall, self.log)
        self.dispatcher = Dispatcher(RequestTable(RequestLimits(1, 1, 60)), self.clock, self.telemetry)
        self.engine = EngineSupervisor(config, self.dispatcher, self.telemetry, self.clock, ("true",))
        self.seen: Any = self.engine  # its inside, which the supervision library calls

    def greeted(self) -> None:
        self.seen._engine_launched(7)
        self.seen._session.hello = Hello(7, "1", "1", "blas")

    def exits(self, code: int) -> None:
        for name, fields in (
            ("child_exited", {"code": code, "signal": None}),
            ("child_gave_up", {"code": code}),
        ):
            self.seen._on_event(Event(0.0, 1, "mlx_engine", name, f"exit code {code}", fields))
        self.seen._supervisor = SimpleNamespace(status=lambda: {"mlx_engine": ChildStatus(State.FAILED)})

    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in self.log.getvalue().splitlines()]


async def test_engine_that_does_not_fit_its_gateway_is_no_crash_and_its_requests_wait_for_the_next_gateway(
    tmp_path: Path,
):
    """After an update, a running gateway starts engines of the new program. Their first event was refused,
    which counted as a crash: a strike against each running request, and the breaker could open.
    """
    gateway = Supervised(tmp_path)
    gateway.greeted()
    gateway.exits(EXIT_OTHER_PROTOCOL)
    assert gateway.engine.is_left_behind
    assert (gateway.engine.last_crash, gateway.telemetry.engine_crashes) == (None, 0)
    assert gateway.dispatcher.refusing is None
    assert "program_changed" in gateway.events() and "child_gave_up" not in gateway.events()


async def test_gateway_whose_first_engine_has_another_protocol_keeps_running_and_refuses_with_the_exit_code(
    tmp_path: Path,
):
    """Such a gateway is as new as the engine, so that another one would fare no better."""
    gateway = Supervised(tmp_path)
    gateway.exits(EXIT_OTHER_PROTOCOL)
    assert gateway.engine.program_changed and not gateway.engine.is_left_behind
    assert gateway.dispatcher.refusing is not None and "exit code 76" in str(gateway.dispatcher.refusing)


async def test_standby_engine_that_does_not_fit_is_reported_once_and_the_running_engine_is_kept(
    tmp_path: Path,
):
    gateway = Supervised(tmp_path)
    gateway.greeted()
    gateway.seen._launcher = SimpleNamespace(standby_exit_code=EXIT_OTHER_PROTOCOL)
    gateway.seen._recycler = SimpleNamespace(
        check=None
    )  # a call would fail: no other engine could be started
    for _ in range(2):
        await gateway.seen._health_probe(7)
    assert gateway.engine.program_changed and not gateway.engine.is_left_behind
    assert gateway.events().count("program_changed") == 1


async def test_program_no_longer_counts_as_changed_once_an_engine_is_ready(tmp_path: Path):
    """Another branch was checked out for a moment; the gateway recycled no engine from then on, and took any
    later failure for the change.
    """
    gateway = Supervised(tmp_path)
    gateway.greeted()
    gateway.seen._launcher = SimpleNamespace(standby_exit_code=EXIT_OTHER_PROTOCOL)
    await gateway.seen._health_probe(7)
    assert gateway.engine.program_changed
    gateway.seen._engine_ready()
    assert not gateway.engine.program_changed


async def test_engine_that_cannot_start_for_another_reason_is_a_failure_although_the_program_has_changed(
    tmp_path: Path,
):
    gateway = Supervised(tmp_path)
    gateway.greeted()
    gateway.seen._report_changed_program()
    gateway.exits(78)
    assert not gateway.engine.is_left_behind and gateway.dispatcher.refusing is not None


@pytest.mark.parametrize(
    ("code", "fault", "crashes"), [(0, "wedged: no sign of life for 30 s", 1), (0, "", 0), (70, "", 1)]
)
async def test_exit_with_code_0_counts_as_a_crash_only_if_the_engine_was_ended_because_it_hung(
    tmp_path: Path, code: int, fault: str, crashes: int
):
    gateway = Supervised(tmp_path)
    gateway.greeted()
    if fault:
        gateway.seen._on_event(Event(0.0, 1, "mlx_engine", "health_failed", fault, {}))
    gateway.exits(code)
    assert gateway.telemetry.engine_crashes == crashes
    assert (gateway.engine.last_crash is not None) == bool(crashes)
