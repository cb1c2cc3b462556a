"""When a standby engine is prepared: in an idle moment, or after a while in any case."""

from __future__ import annotations

import io

import pytest

from mlx_server.gateway.engine_process.standby import EARLIEST_AFTER_S, LATEST_AFTER_S, StandbyPreparation
from mlx_server.gateway.telemetry import Telemetry
from vestal.supervision import FakeClock, LaunchError


class Preparation:
    """A preparation that counts its calls, and raises `error` if one is set."""

    def __init__(self, busy: bool) -> None:
        self.clock = FakeClock()
        self.log = io.StringIO()
        self.prepared = 0
        self.error: Exception | None = None
        telemetry = Telemetry(self.clock.wall, self.log)
        self.preparation = StandbyPreparation(self._prepare, lambda: busy, self.clock, telemetry)

    async def _prepare(self) -> None:
        if self.error is not None:
            raise self.error
        self.prepared += 1


@pytest.mark.parametrize(("busy", "after_s"), [(False, EARLIEST_AFTER_S), (True, LATEST_AFTER_S)])
async def test_standby_engine_is_prepared_early_in_an_idle_moment_or_otherwise_after_the_longest_wait(
    busy, after_s
):
    standby = Preparation(busy)
    standby.preparation.engine_ready()
    standby.preparation.engine_ready()  # the first preparation is under way
    await standby.clock.run_for(after_s - 1)
    assert standby.prepared == 0
    await standby.clock.run_for(2)
    assert standby.prepared == 1


async def test_failed_preparation_of_a_standby_engine_is_reported_and_can_be_repeated():
    standby = Preparation(busy=False)
    standby.error = LaunchError("no memory")
    standby.preparation.engine_ready()
    await standby.clock.run_for(EARLIEST_AFTER_S + 1)
    assert "spare_not_started" in standby.log.getvalue()
    standby.error = None
    standby.preparation.engine_ready()
    await standby.clock.run_for(EARLIEST_AFTER_S + 1)
    assert standby.prepared == 1
