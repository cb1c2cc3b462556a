"""Causes in the journal, in words for people."""

from __future__ import annotations

from host_agent.journal import readable_cause


def test_readable_cause_puts_a_last_log_line_in_json_into_words():
    line = '{"ts": 1, "component": "mlx_engine", "event": "engine_ready", "cause": "", "pid": 3}'
    assert (
        readable_cause(f"killed by SIGKILL: {line}")
        == "killed by SIGKILL; its last log line: mlx_engine engine ready"
    )
    assert readable_cause("exit code 78: a sentence") == "exit code 78: a sentence"
    assert readable_cause("odd: {not json") == "odd: {not json"
