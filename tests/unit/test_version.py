"""All packages have the same version: they run from a checkout, and each carries it itself."""

from __future__ import annotations

import tomllib
from pathlib import Path

import host_agent
import mlx_server
import orchestrator

REPO = Path(__file__).resolve().parents[2]


def test_versions_of_all_packages_equal_the_version_in_pyproject():
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["version"]
    assert {host_agent.VERSION, mlx_server.VERSION, orchestrator.VERSION} == {project}


def test_no_module_reads_installed_metadata_of_the_project():
    """`make up` puts the checkout on the path and builds no package: there is no metadata to be had."""
    packages = ("host_agent", "mlx_server", "orchestrator", "vestal")
    sources = [path for name in packages for path in (REPO / name).rglob("*.py")]
    assert sources
    assert not [path for path in sources if 'version("vestal")' in path.read_text()]
