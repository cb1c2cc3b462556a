"""The status as Prometheus text. Pure."""

from collections.abc import Iterator
from typing import Any

from vestal.supervision import State

UP = ("ready", "busy")


def text(status: dict[str, Any]) -> str:
    """https://prometheus.io/docs/instrumenting/exposition_formats/"""
    return "\n".join([*_services(status["services"]), *_host(status), ""])


def _services(services: dict[str, dict[str, Any]]) -> Iterator[str]:
    yield "# TYPE vestal_service_up gauge"
    for name, row in services.items():
        yield f'vestal_service_up{{service="{name}"}} {int(row["state"] in UP)}'
    yield "# TYPE vestal_service_state gauge"
    for name, row in services.items():
        for state in State:
            yield f'vestal_service_state{{service="{name}",state="{state}"}} {int(row["state"] == state)}'
    yield "# TYPE vestal_service_restarts_total counter"
    for name, row in services.items():
        yield f'vestal_service_restarts_total{{service="{name}"}} {row["restart_count"]}'


def _host(status: dict[str, Any]) -> Iterator[str]:
    memory = status["host"]["memory"]
    yield "# TYPE vestal_host_memory_total_bytes gauge"
    yield f"vestal_host_memory_total_bytes {memory['total_bytes']}"
    yield "# TYPE vestal_host_memory_available_bytes gauge"
    yield f"vestal_host_memory_available_bytes {memory['available_bytes']}"
    if status["host"]["wired_fraction"] is not None:
        yield "# TYPE vestal_host_wired_fraction gauge"
        yield f"vestal_host_wired_fraction {status['host']['wired_fraction']:.4f}"
    yield "# TYPE vestal_agent_rss_bytes gauge"
    yield f"vestal_agent_rss_bytes {status['services']['agent']['rss_bytes']}"
    yield "# TYPE vestal_recovery_passes_total counter"
    yield f"vestal_recovery_passes_total {status['recovery']['passes']}"
    yield "# TYPE vestal_healthy gauge"
    yield f"vestal_healthy {int(status['healthy'])}"
