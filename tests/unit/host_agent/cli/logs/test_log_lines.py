"""Lines of logs: read from every program's format, turned into sentences, and formatted for people and
programs.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from datetime import datetime

import pytest

from host_agent.agent.daemon import LogFormat
from host_agent.cli.logs.formatting import PipeFormatter, Repeats, TerminalFormatter
from host_agent.cli.logs.log_line import LogLine, parse, parse_container_line
from host_agent.cli.logs.sentences import sentence_of
from host_agent.cli.screen.styled import plain

AT = datetime(2026, 11, 28, 9, 45, 45)
ENGINE_EXITED = {
    "ts": AT.timestamp() + 0.243,
    "seq": 10,
    "component": "mlx_engine",
    "event": "child_exited",
    "cause": "killed by SIGKILL",
    "pid": 27364,
    "code": None,
    "signal": 9,
}
AGENT_EXITED = (
    "2026-11-28 09:45:45,253 INFO vestal: mlx_engine child_exited: killed by SIGKILL"
    " [pid=27364 code=None signal=9]"
)


def test_json_log_line_is_read_with_its_fields_and_severity():
    line = parse("mlx_server", json.dumps(ENGINE_EXITED))
    assert (line.component, line.event, line.severity) == ("mlx_engine", "child_exited", "warning")
    assert line.fields == {"seq": 10, "pid": 27364, "code": None, "signal": 9}
    assert sentence_of(line) == "PID 27364 ended: killed by SIGKILL."


def test_agent_log_line_is_read_like_the_json_line_of_the_same_event():
    agents, gateways = parse("agent", AGENT_EXITED), parse("mlx_server", json.dumps(ENGINE_EXITED))
    assert agents.ts == pytest.approx(AT.timestamp() + 0.253)
    assert (agents.component, agents.event, agents.cause, agents.severity) == (
        gateways.component, gateways.event, gateways.cause, gateways.severity,
    )  # fmt: skip


def test_agent_log_line_with_spaces_in_a_field_is_read_completely():
    line = parse(
        "agent",
        "2026-11-28 09:45:33,126 INFO vestal: recovery recovery_finished: it came back by itself"
        " [run_id=8cb2 reason=asked by 172.23.0.2 healthy=True took_s=9.01]",
    )
    assert line.fields == {"run_id": "8cb2", "reason": "asked by 172.23.0.2", "healthy": True, "took_s": 9.01}
    assert sentence_of(line) == "A recovery pass ended in 9.0 s, all is healthy: it came back by itself."


@pytest.mark.parametrize(
    ("raw", "severity", "text"),
    [
        ("Traceback (most recent call last):", "error", "Traceback (most recent call last):"),
        ('  File "/x.py", line 1, in <module>', "info", '  File "/x.py", line 1, in <module>'),
        ("vestal: No port is free.", "info", "vestal: No port is free."),
        ("[1, 2]", "info", "[1, 2]"),
        ('{"ts": 17', "info", '{"ts": 17'),
        ("", "info", ""),
    ],
)
def test_log_line_that_is_not_a_json_event_is_shown_unchanged(raw: str, severity: str, text: str):
    line = parse("ollama", raw)
    assert (line.ts, line.component, line.severity, sentence_of(line)) == (None, "ollama", severity, text)


def test_ollama_log_lines_are_read_with_time_and_level():
    slog = parse("ollama", 'time=2026-11-28T09:45:45.5Z level=WARN source=a.go:1 msg="no \\"x\\" here" id=3')
    assert (slog.ts, slog.severity) == (
        datetime.fromisoformat("2026-11-28T09:45:45.5+00:00").timestamp(),
        "warning",
    )
    assert sentence_of(slog) == 'no "x" here id=3'
    gin = parse("ollama", '[GIN] 2026/11/28 - 09:45:45 | 500 |  1.2ms |  127.0.0.1 | POST     "/api/chat"')
    assert (gin.ts, gin.severity) == (AT.timestamp(), "error")
    assert sentence_of(gin) == '500 1.2ms 127.0.0.1 POST "/api/chat"'


@pytest.mark.parametrize("erasing", ["", "\x1b[2K", "\r\x1b[K"])
def test_container_log_line_without_a_time_of_its_own_gets_the_time_from_docker(erasing: str):
    """`docker compose` 2.5 begins each line with an escape sequence that erases the terminal's line."""
    text = parse_container_line("nightly", f"{erasing}2026-11-28T09:45:45.123456789Z plain text")
    assert (text.line.raw, sentence_of(text.line)) == ("plain text", "plain text")
    at = datetime.fromisoformat("2026-11-28T09:45:45+00:00").timestamp()
    assert text.line.ts == text.received_at == pytest.approx(at + 0.123456789)
    event = parse_container_line("nightly", f"{erasing}2026-11-28T09:45:45.5Z {json.dumps(ENGINE_EXITED)}")
    assert (event.line.ts, event.received_at) == (ENGINE_EXITED["ts"], at + 0.5)


def test_log_message_of_docker_compose_itself_has_no_time():
    remark = parse_container_line("nightly", "nightly-1 exited with code 0")
    assert (remark.received_at, sentence_of(remark.line)) == (None, "nightly-1 exited with code 0")


@pytest.mark.parametrize("ts", ["1700000000123", "NaN", "1e999", "-1e999", "1e400", "9" * 400, "true", '"x"'])
def test_log_line_whose_time_cannot_be_shown_is_shown_without_a_time(ts: str):
    """One line with a time in milliseconds ended `vestal logs` as a bug, and no further line was shown."""
    raw = f'{{"ts": {ts}, "event": "moon_rose"}}'
    line = parse("ollama", raw)
    assert (line.ts, line.as_json()["line"]) == (None, raw)
    assert [plain(shown) for shown in PipeFormatter().lines(line)][0].endswith("Moon rose.")
    assert TerminalFormatter().lines(line, 80)


@pytest.mark.parametrize(
    "at", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-13-01T00:00:00Z"]
)
def test_log_lines_of_docker_and_ollama_with_an_impossible_time_have_none(at: str):
    assert parse("ollama", f"time={at} level=INFO msg=x").ts is None
    assert parse_container_line("nightly", f"{at} text").received_at is None


def test_log_event_with_an_infinite_number_is_still_shown():
    line = parse("mlx_server", '{"ts": 1, "event": "requests_parked", "count": 1e999}')
    assert sentence_of(line) == "Requests parked (count inf)."


def test_log_event_without_a_sentence_template_is_shown_by_name_cause_and_fields():
    line = parse(
        "agent",
        json.dumps(
            {
                "ts": 1,
                "event": "moon_rose",
                "cause": "it is night",
                "full": True,
                "of": None,
                "in": {"a": 1},
                "by": [],
            }
        ),
    )
    assert sentence_of(line) == "Moon rose: it is night (full True, in a: 1)."


def test_log_event_with_missing_fields_is_still_shown():
    line = parse("mlx_engine", json.dumps({"ts": 1, "event": "model_loaded", "model": "m"}))
    assert sentence_of(line) == "Model loaded (model m)."


@pytest.mark.parametrize(
    ("event", "fields", "severity"),
    [
        ("breaker_opened", {}, "error"),
        ("model_load_failed", {}, "error"),
        ("request_refused", {}, "warning"),
        ("pid_file_not_written", {}, "warning"),
        ("notice_delivered", {}, "info"),
        ("child_exited", {"code": 0, "signal": None}, "info"),
        ("child_exited", {"code": 1, "signal": None}, "warning"),
        ("request_finished", {"outcome": "done"}, "info"),
        ("request_finished", {"outcome": "failed"}, "warning"),
        ("logged", {"level": "error"}, "error"),
    ],
)
def test_severity_of_a_log_event_comes_from_its_level_field_or_else_from_its_name_and_outcome(
    event: str, fields: dict, severity: str
):
    assert parse("x", json.dumps({"ts": 1, "event": event, **fields})).severity == severity


def test_logs_json_output_keeps_every_field_and_the_text_of_lines_that_are_not_json():
    shown = parse("mlx_server", json.dumps(ENGINE_EXITED)).as_json()
    assert shown == ENGINE_EXITED | {"service": "mlx_server", "severity": "warning"}
    assert parse("ollama", "free text").as_json() == {
        "ts": None, "service": "ollama", "component": "ollama", "event": None,
        "cause": "free text", "severity": "info", "line": "free text",
    }  # fmt: skip


def test_logs_output_to_a_pipe_has_one_dated_line_without_style_for_each_event():
    (line,) = PipeFormatter().lines(parse("mlx_server", json.dumps(ENGINE_EXITED)))
    assert plain(line) == "2026-11-28 09:45:45  mlx_engine     PID 27364 ended: killed by SIGKILL."


def test_logs_output_to_a_terminal_names_each_day_once_and_indents_wrapped_sentences():
    terminal, line = (
        TerminalFormatter(),
        parse("mlx_server", json.dumps(ENGINE_EXITED | {"cause": "word " * 20})),
    )
    day, first, *others = terminal.lines(line, 80)
    assert plain(day) == "── 2026-11-28 ──"
    assert plain(first).startswith("09:45:45  mlx_engine     PID 27364 ended: word")
    assert all(plain(other).startswith(" " * 25 + "word") for other in others)
    assert not any("──" in plain(again) for again in terminal.lines(line, 80))


@pytest.mark.parametrize("width", [1, 20, 40, 79, 80, 200])
def test_logs_output_to_a_terminal_of_any_width_shows_every_word(width: int):
    line = parse("mlx_server", json.dumps(ENGINE_EXITED))
    words = " ".join(plain(part) for part in TerminalFormatter().lines(line, width)).split()
    assert "27364" in words and "SIGKILL." in words


def test_logs_output_to_a_terminal_contains_no_control_characters_from_a_log():
    line = parse("ollama", "\x1b]0;title\x07\x1b[2Jred")
    assert plain(TerminalFormatter().lines(line, 80)[0]).endswith("]0;title[2Jred")


def test_gateway_event_that_the_agent_logs_again_soon_after_is_recognized_as_a_repeat():
    repeats = Repeats()
    assert not repeats.is_repeated(parse("mlx_server", json.dumps(ENGINE_EXITED)))
    assert repeats.is_repeated(parse("agent", AGENT_EXITED))
    assert not repeats.is_repeated(parse("agent", AGENT_EXITED.replace("27364", "27365")))
    late = LogLine(
        "agent",
        "",
        AT.timestamp() + 60,
        "mlx_engine",
        "child_exited",
        "killed by SIGKILL",
        {"pid": 27364},
    )
    assert not repeats.is_repeated(late)


@pytest.fixture
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def agent_line(ts: float) -> str:
    record = logging.LogRecord("vestal", logging.INFO, "", 0, "mlx_engine child_exited: minute", (), None)
    record.created, record.msecs = ts, ts % 1 * 1000
    return LogFormat().format(record)


@pytest.mark.usefixtures("in_berlin")
def test_agent_log_lines_of_the_hour_that_comes_twice_keep_their_times():
    """In the hour after the end of summer time, `vestal logs --since 10m` once lacked the agent's lines."""
    end = 1792890000.0  # 2026-10-25 01:00 UTC: 03:00 becomes 02:00
    times = [end + minutes * 60 + 0.25 for minutes in (-30, 0, 30, 90)]
    assert agent_line(times[2]).startswith("2026-10-25 02:30:00,250+0100 INFO vestal: ")
    assert [parse("agent", agent_line(ts)).ts for ts in times] == times


def test_log_line_with_an_impossible_time_is_read_without_a_time():
    for raw in ("2026-13-28 09:45:45,253 INFO vestal: x", "[GIN] 2026/13/28 - 09:45:45 | 200 | x"):
        assert parse("agent", raw).ts is None
