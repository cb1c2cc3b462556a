"""The address of the Docker engine, from the environment and from docker's contexts."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from host_agent.services.docker import docker_endpoint
from host_agent.services.docker.docker_endpoint import SOCKETS, find_endpoint, variables


def test_docker_endpoint_without_docker_host_is_taken_from_the_current_docker_context(tmp_path: Path):
    folder = tmp_path / ".docker"
    # sha256 of "desktop-linux", as the docker command names the folder
    meta = folder / "contexts/meta/fe9c6bd7a66301f49ca9b6a70b217107cd1284598bfc254700c989b916da791e"
    meta.mkdir(parents=True)
    (folder / "config.json").write_text('{"currentContext": "desktop-linux"}')
    host = "unix:///Users/ada/.docker/run/docker.sock"
    (meta / "meta.json").write_text(json.dumps({"Endpoints": {"docker": {"Host": host}}}))
    found = find_endpoint({"HOME": str(tmp_path)})
    assert found == host


@pytest.mark.parametrize(
    ("address", "endpoint"),
    [
        ("unix:///x.sock", "unix:///x.sock"),
        ("tcp://1.2.3.4:2375", "http://1.2.3.4:2375"),
        ("ssh://host", None),
    ],
)
def test_docker_endpoint_is_taken_from_the_variable_docker_host_if_the_address_has_a_supported_form(
    address: str, endpoint: str | None
):
    assert find_endpoint({"DOCKER_HOST": address}) == endpoint


def test_docker_endpoint_in_a_folder_that_cannot_be_looked_into_is_not_found(monkeypatch):
    """Earlier, an OSError was raised if `~/.docker` belonged to another user."""
    monkeypatch.setattr(docker_endpoint, "SOCKETS", [each for each in SOCKETS if each.startswith("~")])
    assert find_endpoint({"HOME": f"/{'x' * 300}"}) is None  # the system refuses so long a name to every user


def test_docker_command_is_given_the_socket_that_the_agent_found_unless_docker_host_or_a_context_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Once, with a Colima whose context was not in use, the agent asked Colima's engine, and the `docker`
    command, which looks only at the first of the usual sockets, found no engine.
    """
    monkeypatch.setattr(docker_endpoint, "SOCKETS", ["/nowhere/docker.sock", "~/colima.sock"])
    path = tmp_path / "colima.sock"
    assert variables({"HOME": str(tmp_path)}) == {}
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
    assert variables({"HOME": str(tmp_path)}) == {"DOCKER_HOST": f"unix://{path}"}
    assert find_endpoint({"HOME": str(tmp_path)}) == f"unix://{path}"
    assert variables({"HOME": str(tmp_path), "DOCKER_HOST": "unix:///x.sock"}) == {}
