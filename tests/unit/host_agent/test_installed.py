"""Digests of installed code and settings, and which running services are outdated by them."""

from __future__ import annotations

import os

import pytest

from host_agent.installed import comparison, digests

INSTALLED = {"agent": "c2.s1", "mlx_server": "c2.s1", "nightly": "c1.s1"}


@pytest.mark.parametrize(
    ("running", "why"),
    [
        ("c1.s1", ""),
        ("c0.s1", "its code has changed"),
        ("c1.s0", "its settings have changed"),
        ("c0.s0", "its code and its settings have changed"),
        (None, "was started by an older version of Vestal"),
        ("", "was started by an older version of Vestal"),
    ],
)
def test_running_service_is_outdated_if_its_code_or_settings_differ_from_the_installed_ones(running, why):
    assert comparison.why_outdated(running, "c1.s1") == why


def test_outdated_services_include_only_known_services_whose_running_digest_differs():
    running = {"agent": "c2.s1", "mlx_server": "c1.s1", "unknown": "x.y"}
    assert comparison.outdated(running, INSTALLED) == {"mlx_server": "its code has changed"}


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with two source files, and one installed package of the lock."""
    for name in ("vestal/a.py", "host_agent/page.html", "host_agent/__pycache__/a.cpython-311.pyc"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    for name in ("mlx-0.32.dist-info", "pytest-9.dist-info"):
        (tmp_path / "site" / name).mkdir(parents=True)
        (tmp_path / "site" / name / "RECORD").write_text("x.py,sha256=1,1")
    (tmp_path / "host.lock").write_text("mlx==0.32 \\\n    --hash=sha256:0\n")
    monkeypatch.setattr(digests, "ROOT", tmp_path)
    monkeypatch.setattr(digests, "LOCK", tmp_path / "host.lock")
    monkeypatch.setattr(digests.sysconfig, "get_path", lambda name: str(tmp_path / "site"))
    return tmp_path


def test_code_digest_changes_with_file_contents_and_names_and_not_with_times(checkout):
    before = digests.code_digest("agent")
    os.utime(checkout / "vestal" / "a.py", (1, 1))
    (checkout / "host_agent" / "__pycache__" / "a.cpython-311.pyc").write_text("2")
    assert digests.code_digest("agent") == before
    (checkout / "vestal" / "a.py").rename(checkout / "vestal" / "b.py")
    renamed = digests.code_digest("agent")
    (checkout / "host_agent" / "page.html").write_text("2")
    assert len({before, renamed, digests.code_digest("agent")}) == 3


def test_code_digest_of_the_gateway_does_not_change_with_files_of_the_agent(checkout):
    gateway = digests.code_digest("mlx_server")
    (checkout / "host_agent" / "page.html").write_text("2")
    assert digests.code_digest("mlx_server") == gateway


def test_code_digest_changes_with_a_package_in_the_lock_file_and_with_no_other_package(checkout):
    before = digests.code_digest("agent")
    (checkout / "site" / "pytest-9.dist-info" / "RECORD").write_text("y.py,sha256=2,22")
    assert digests.code_digest("agent") == before
    (checkout / "site" / "mlx-0.32.dist-info" / "RECORD").write_text("y.py,sha256=2,22")
    assert digests.code_digest("agent") != before


def test_installation_digest_keeps_its_code_part_if_only_the_settings_change():
    one, other = digests.digest("agent", "a"), digests.digest("agent", "b")
    assert one != other
    assert digests.code_of(one) == digests.code_of(other)
