"""Sentences for people: ports, journal causes, metrics."""

from __future__ import annotations

import time

from host_agent.journal import readable_cause
from vestal.platform.ports import PortHolder, in_use_message, parse_lsof


def test_holder_of_a_port_is_named_with_the_remedy():
    now = time.time()
    text = in_use_message(PortHolder(11435, 123, "python3", "python3 -m x", "", now), "VESTAL_MLX_PORT")
    at = time.strftime("%H:%M", time.localtime(now))
    assert text == (
        f"port 11435 is held by python3 (PID 123, since {at}); "
        "stop it with `kill 123`, or set VESTAL_MLX_PORT to another port"
    )


def test_holder_that_may_not_be_seen_is_said_to_be_another_users():
    assert "another user" in in_use_message(PortHolder(11435, None), "VESTAL_MLX_PORT")


def test_lsof_of_a_mac_gives_the_first_process():
    # Recorded form of `lsof -nP -iTCP:11434 -sTCP:LISTEN -FpcL`.
    found = parse_lsof(11434, "p501\ncollama\nLada\nf3\np777\ncother\nLroot\n")
    assert found == PortHolder(11434, 501, "ollama", "", "ada")
    assert parse_lsof(11434, "") is None


def test_readable_cause_puts_a_last_log_line_in_json_into_words():
    line = '{"ts": 1, "component": "mlx_engine", "event": "engine_ready", "cause": "", "pid": 3}'
    assert (
        readable_cause(f"killed by SIGKILL: {line}")
        == "killed by SIGKILL; its last log line: mlx_engine engine ready"
    )
    assert readable_cause("exit code 78: a sentence") == "exit code 78: a sentence"
    assert readable_cause("odd: {not json") == "odd: {not json"
