"""What is said about the holder of a port, and how it is read from `lsof`."""

from __future__ import annotations

import shutil
import subprocess
import time

import psutil
import pytest

from vestal.platform import ports
from vestal.platform.ports import PortHolder, in_use_message, parse_lsof


def test_port_in_use_message_names_the_holder_and_the_remedy():
    now = time.time()
    text = in_use_message(PortHolder(11435, 123, "python3", "python3 -m x", "", now), "VESTAL_MLX_PORT")
    at = time.strftime("%H:%M", time.localtime(now))
    assert text == (
        f"port 11435 is held by python3 (PID 123, since {at}); "
        "stop it with `kill 123`, or set VESTAL_MLX_PORT to another port"
    )


@pytest.mark.parametrize(
    "name", ["docker-proxy", "com.docker.backend", "OrbStack Helper", "limactl", "gvproxy"]
)
def test_port_in_use_message_for_a_container_does_not_advise_to_end_the_virtual_machine(
    name: str,
):
    """Once, the remedy was `kill` with the PID of the process in which all containers run."""
    text = in_use_message(PortHolder(8088, 700, name), "VESTAL_ORCHESTRATOR_PORT")
    assert name in text
    assert "`docker ps --filter publish=8088`" in text
    assert "kill" not in text


def test_port_in_use_message_for_an_ssh_tunnel_advises_to_end_it():
    text = in_use_message(PortHolder(11435, 4242, "ssh"), "VESTAL_MLX_PORT")
    assert "`kill 4242`" in text and "docker" not in text


def test_port_in_use_message_without_a_pid_says_that_another_user_holds_the_port():
    assert "another user" in in_use_message(PortHolder(11435, None), "VESTAL_MLX_PORT")


def test_lsof_output_gives_the_address_and_the_pid_of_each_socket():
    # Recorded form of `lsof -nP -iTCP:11434 -sTCP:LISTEN -Fpn`.
    output = "p501\nf3\nn127.0.0.1:11434\nf4\nn[::1]:11434\np777\nf9\nn*:11434\n"
    assert parse_lsof(output) == [("127.0.0.1", 501), ("::1", 501), ("*", 777)]
    assert parse_lsof("") == []


@pytest.mark.parametrize(
    ("names", "holder"),
    [
        (["[::1]"], None),
        (["192.168.1.7"], None),
        (["[::1]", "*"], 502),
        (["*", "127.0.0.1"], 502),
        (["[::ffff:127.0.0.1]"], 501),
    ],
)
def test_port_holder_on_macos_listens_at_the_address_or_at_all_of_them(
    monkeypatch: pytest.MonkeyPatch, names: list[str], holder: int | None
):
    """A development server at [::1] alone was reported as the holder of 127.0.0.1, which was free."""
    output = "".join(f"p{501 + number}\nf3\nn{name}:8088\n" for number, name in enumerate(names))

    def deny(kind: str) -> None:
        raise psutil.AccessDenied(1)

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 0, stdout=output)

    monkeypatch.setattr(psutil, "net_connections", deny)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/sbin/{name}")
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(ports, "is_free", lambda port, address: True)
    monkeypatch.setattr(ports, "_serving_process", lambda port, pid: pid)
    monkeypatch.setattr(ports, "_describe", PortHolder)
    found = ports.holder(8088)
    assert (found and found.pid) == holder
