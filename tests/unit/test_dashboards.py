"""The Grafana dashboard and Prometheus rules in deploy/: their structure, and their expressions by promtool.

The tests of each service's GET /metrics check, by `dashboards.missing_of`, that the metrics exist.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests import dashboards

PROMTOOL = os.environ.get("VESTAL_TEST_PROMTOOL") or shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is missing (Debian: apt install prometheus, or VESTAL_TEST_PROMTOOL)"
)


def test_grafana_dashboard_has_panels_that_do_not_overlap_and_one_data_source():
    board = json.loads(dashboards.DASHBOARD.read_text())
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 20
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}"
            assert panel["description"].endswith("."), panel["title"]
    assert [variable["name"] for variable in board["templating"]["list"]] == ["datasource"]


def test_every_prometheus_alert_has_a_severity_and_a_remedy():
    alerts = [rule for group in dashboards.rules()["groups"] for rule in group["rules"]]
    assert len({alert["alert"] for alert in alerts}) == len(alerts)
    for alert in alerts:
        assert alert["labels"]["severity"] in ("warning", "critical")
        assert all(alert["annotations"][part].endswith(".") for part in ("summary", "description"))


@needs_promtool
def test_prometheus_alert_rules_are_valid_and_fire_as_in_their_promtool_tests():
    folder = dashboards.RULES.parent
    for arguments in (("check", "rules", dashboards.RULES.name), ("test", "rules", "vestal.rules.test.yml")):
        _promtool(folder, *arguments)


@needs_promtool
def test_expressions_of_the_grafana_dashboard_are_valid_promql(tmp_path: Path):
    expressions = [each.replace("$__rate_interval", "5m") for each in dashboards.expressions()]
    recorded = [{"record": f"r:{number}", "expr": each} for number, each in enumerate(expressions)]
    file = tmp_path / "dashboard.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": recorded}]}))
    _promtool(tmp_path, "check", "rules", file.name)


@needs_promtool
def test_example_prometheus_configuration_passes_promtool(tmp_path: Path):
    for name in ("prometheus.yml", dashboards.RULES.name):
        text = (dashboards.RULES.parent / name).read_text()
        (tmp_path / name).write_text(text.replace("/etc/prometheus/vestal.token", str(tmp_path / "token")))
    (tmp_path / "token").write_text("secret")
    _promtool(tmp_path, "check", "config", "prometheus.yml")


def _promtool(folder: Path, *arguments: str) -> None:
    done = subprocess.run([str(PROMTOOL), *arguments], cwd=folder, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stdout + done.stderr
