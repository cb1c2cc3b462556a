"""The engine's supervisor in a gateway that stops."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from mlx_server.gateway.engine_process.supervisor import EngineSupervisor
from mlx_server.gateway.requests.dispatcher import Dispatcher
from mlx_server.gateway.requests.table.engine_wait import RequestLimits
from mlx_server.gateway.requests.table.request_table import RequestTable
from mlx_server.gateway.telemetry import Telemetry
from vestal.config import load
from vestal.supervision import FakeClock, StopTimeout, Supervisor


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
