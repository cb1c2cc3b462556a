"""The listener's figures, as Prometheus reads them."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from host_agent.listener import metrics
from tests import dashboards


def test_metrics_text_is_parsed_by_prometheus_with_every_name_and_label():
    service = {"state": "ready", "restart_count": 2, "rss_bytes": 5, "circuit_breaker_state": "closed"}
    memory = {"total_bytes": 10, "available_bytes": 4}
    absent = {**service, "state": "absent", "circuit_breaker_state": "open"}
    status = {
        "services": {"agent": service, "ollama": absent},
        "host": {"memory": memory, "wired_fraction": None},
        "recovery": {"passes": 3},
        "healthy": True,
    }
    families = list(text_string_to_metric_families(metrics.text(status)))
    found = {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}
    assert found["vestal_service_up", "agent"] == 1
    assert found["vestal_service_up", "ollama"] == 0
    assert found["vestal_service_state", "agent", "ready"] == 1
    assert found["vestal_service_state", "agent", "absent"] == 0
    assert found["vestal_service_restarts_total", "agent"] == 2
    assert found["vestal_service_breaker_open", "agent"] == 0
    assert found["vestal_service_breaker_open", "ollama"] == 1
    assert found["vestal_recovery_passes_total",] == 3
    assert found["vestal_agent_rss_bytes",] == 5
    assert found["vestal_healthy",] == 1
    assert {family.type for family in families} == {"gauge", "counter"}
    with_wired = metrics.text({**status, "host": {"memory": memory, "wired_fraction": 0.25}})
    assert "vestal_host_wired_fraction 0.25" in with_wired
    assert dashboards.missing_of("agent", with_wired) == set()
