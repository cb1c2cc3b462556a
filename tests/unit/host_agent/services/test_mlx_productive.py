"""A gateway that has served clients before it died does not count as one in a crash loop."""

from __future__ import annotations

from typing import Any, cast

import aiohttp
import pytest

from host_agent.services.mlx.service import MlxService
from mlx_server.gateway.telemetry import Telemetry
from vestal.config import load
from vestal.supervision import Event


@pytest.fixture
def service(home) -> MlxService:
    return MlxService(load({"VESTAL_HOME": str(home)}), cast("aiohttp.ClientSession", None))


def _event(**fields: Any) -> Event:
    return Event(1.0, 1, "mlx_server", "gateway_first_delivery", "", fields)


def test_gateway_process_counts_as_productive_only_after_its_first_delivery_to_a_client(service):
    spec = service.spec()
    assert spec.productive is not None
    assert spec.policy.productive_weight < 1
    assert not spec.productive(17)
    service.on_gateway_event(_event(pid=17))
    assert spec.productive(17)
    assert not spec.productive(18), "its successor has not served anybody yet"


def test_gateway_reports_its_first_delivery_to_a_client_only_once(capsys):
    telemetry = Telemetry(lambda: 0.0)
    telemetry.delivered()
    telemetry.delivered()
    assert capsys.readouterr().err.count("gateway_first_delivery") == 1
    assert telemetry.deliveries == 2
