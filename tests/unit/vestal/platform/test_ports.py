"""What is said about the holder of a port, and how it is read from `lsof`."""

from __future__ import annotations

import time

import pytest

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


def test_port_in_use_message_without_a_pid_says_that_another_user_holds_the_port():
    assert "another user" in in_use_message(PortHolder(11435, None), "VESTAL_MLX_PORT")


def test_lsof_output_is_parsed_into_the_first_process_or_none():
    # Recorded form of `lsof -nP -iTCP:11434 -sTCP:LISTEN -FpcL`.
    found = parse_lsof(11434, "p501\ncollama\nLada\nf3\np777\ncother\nLroot\n")
    assert found == PortHolder(11434, 501, "ollama", "", "ada")
    assert parse_lsof(11434, "") is None
