"""Convert the body of GET /status to the Prometheus metrics of GET /metrics."""

from collections.abc import Iterator
from typing import Any

from vestal.supervision import State
from vestal.web.metrics import CONTENT_TYPE, Metric, counter, gauge, render

__all__ = ["CONTENT_TYPE", "text"]
UP = ("ready", "busy")


def text(status: dict[str, Any]) -> str:
    """Return the body of GET /status as Prometheus text."""
    return render([*_services(status["services"]), *_host(status)])


def _services(services: dict[str, dict[str, Any]]) -> Iterator[Metric]:
    up = {(name,): float(service["state"] in UP) for name, service in services.items()}
    states = {
        (name, str(state)): float(service["state"] == state)
        for name, service in services.items()
        for state in State
    }
    restarts = {(name,): service["restart_count"] for name, service in services.items()}
    breakers = {
        (name,): float(service["circuit_breaker_state"] == "open") for name, service in services.items()
    }
    yield gauge("vestal_service_up", "Whether the service works", up, ("service",))
    yield gauge("vestal_service_state", "1 for the state of the service", states, ("service", "state"))
    yield gauge("vestal_service_breaker_open", "Whether its breaker is open", breakers, ("service",))
    yield counter("vestal_service_restarts_total", "Restarts of the service", restarts, ("service",))


def _host(status: dict[str, Any]) -> Iterator[Metric]:
    memory, wired = status["host"]["memory"], status["host"]["wired_fraction"]
    rss = status["services"]["agent"]["rss_bytes"]
    yield gauge("vestal_host_memory_total_bytes", "Physical memory", memory["total_bytes"])
    yield gauge("vestal_host_memory_available_bytes", "Memory that can be used", memory["available_bytes"])
    if wired is not None:
        yield gauge("vestal_host_wired_fraction", "Wired part of the memory (macOS)", round(wired, 4))
    yield gauge("vestal_agent_rss_bytes", "Resident memory of the agent", rss)
    yield counter("vestal_recovery_passes_total", "Recovery passes", status["recovery"]["passes"])
    yield gauge("vestal_healthy", "Whether every service is healthy", int(status["healthy"]))
