"""List the metrics that deploy/grafana and deploy/prometheus use, to compare them with the services'
metrics.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
DASHBOARD = DEPLOY / "grafana" / "vestal.json"
RULES = DEPLOY / "prometheus" / "vestal.rules.yml"
NAME = re.compile(r"\bvestal_\w+")
EXPOSED = {
    "counter": ("",),
    "gauge": ("",),
    "summary": ("_sum", "_count"),
    "histogram": ("_bucket", "_sum", "_count"),
}
"""By type, what Prometheus appends to the name of a metric."""
PREFIXES = {
    "orchestrator": ("vestal_orchestrator_",),
    "agent": ("vestal_service_", "vestal_host_", "vestal_agent_", "vestal_recovery_", "vestal_healthy"),
}


def expressions() -> Iterator[str]:
    """Yield every expression of the dashboard and of the rules."""
    board = json.loads(DASHBOARD.read_text())
    for panel in board["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    yield from (annotation["expr"] for annotation in board["annotations"]["list"])
    for group in rules()["groups"]:
        yield from (rule["expr"] for rule in group["rules"])


def rules() -> Any:
    """Return the content of the file of rules."""
    return yaml.safe_load(RULES.read_text())


def named() -> set[str]:
    """Return the name of every Vestal metric in the expressions."""
    return {name for expression in expressions() for name in NAME.findall(expression)}


def missing_of(service: str, text: str) -> set[str]:
    """Return the service's metrics that the expressions use but that `text`, its GET /metrics, does not
    contain.

    `service` is "agent", "gateway" or "orchestrator".
    """
    types = re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE)
    exposed = {name + suffix for name, kind in types for suffix in EXPOSED[kind]}
    return {name for name in named() if _service_of(name) == service} - exposed


def _service_of(name: str) -> str:
    return next((service for service, prefixes in PREFIXES.items() if name.startswith(prefixes)), "gateway")
