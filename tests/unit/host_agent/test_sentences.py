"""Sentences for people: from short texts, and from causes in the journal."""

from __future__ import annotations

import pytest

from host_agent.sentences import as_sentence, readable_cause


def test_readable_cause_turns_a_last_log_line_in_json_into_a_sentence():
    line = '{"ts": 1, "component": "mlx_engine", "event": "engine_ready", "cause": "", "pid": 3}'
    assert (
        readable_cause(f"killed by SIGKILL: {line}")
        == "killed by SIGKILL; its last log line: mlx_engine engine ready"
    )
    assert readable_cause("exit code 78: a sentence") == "exit code 78: a sentence"
    assert readable_cause("odd: {not json") == "odd: {not json"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("killed by SIGSEGV", "Killed by SIGSEGV."), ("  It is done. ", "It is done.")],
)
def test_as_sentence_adds_a_capital_letter_and_a_period(text: str, sentence: str):
    assert as_sentence(text) == sentence
