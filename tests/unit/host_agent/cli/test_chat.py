"""The pure parts of `vestal chat` and `vestal demo`: frames, commands, multi-line messages, and the
report.
"""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from typing import Any

import pytest

from host_agent.cli.chat import demo, prompt
from host_agent.cli.chat.answer import (
    EngineDied,
    EngineStarted,
    Failed,
    Finished,
    Frame,
    Piece,
    engine_happening,
    read_frame,
)
from host_agent.cli.chat.conversation import Conversation, MessageLines, command_of
from host_agent.cli.chat.demo_report import Killed, is_within_sentence, pause_after, report, survived
from host_agent.cli.chat.word_wrap import WordWrap
from host_agent.errors import NotPossible


def line(**frame: object) -> bytes:
    return json.dumps(frame).encode() + b"\n"


@pytest.mark.parametrize(
    ("raw", "frame"),
    [
        (line(message={"content": "a"}, done=False), Frame([Piece("a")])),
        (line(message={"content": ""}, done=False), Frame()),
        (line(message={"content": "", "thinking": "hm"}), Frame([Piece("hm", is_thought=True)])),
        (
            line(message={"content": "."}, done=True, eval_count=7, done_reason="stop"),
            Frame([Piece("."), Finished(7, "stop")], is_last=True),
        ),
        (line(error="No memory."), Frame([Failed("No memory.")], is_last=True)),
        (line(error={"message": "No memory."}), Frame([Failed("No memory.")], is_last=True)),
        (b"not JSON\n", Frame()),
        (b"[1]\n", Frame()),
    ],
)
def test_chat_read_frame_returns_the_pieces_errors_and_end_of_an_answer(raw: bytes, frame: Frame):
    assert read_frame(raw) == frame


def test_engine_happening_returns_an_event_for_an_engine_death_or_start_and_else_none():
    died = {
        "component": "mlx_engine",
        "event": "child_exited",
        "cause": "killed by SIGKILL",
        "fields": {"pid": 7},
    }
    started = {"component": "mlx_engine", "event": "child_started", "cause": "", "fields": {"pid": 8}}
    parked = {"component": "mlx_server", "event": "requests_parked", "cause": "", "fields": {"count": 1}}
    assert engine_happening(died) == EngineDied(7, "killed by SIGKILL")
    assert engine_happening(started) == EngineStarted(8)
    assert engine_happening(parked) is None and engine_happening({}) is None


def test_chat_history_keeps_an_interrupted_answer_and_drops_a_question_without_an_answer():
    conversation = Conversation("m")
    assert conversation.ask("one") == {
        "model": "m", "messages": [{"role": "user", "content": "one"}], "stream": True,
    }  # fmt: skip
    conversation.answered("par")
    conversation.ask("two")
    conversation.answered("")
    assert [message["content"] for message in conversation.messages] == ["one", "par"]


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("/bye", ("/bye", "")),
        ("/model  qwen3:8b ", ("/model", "qwen3:8b")),
        ("/unknown", ("/unknown", "")),
        ("/etc/hosts says what?", None),
        ("hello /bye", None),
        ("/bye\nnot a command", None),
        ("", None),
    ],
)
def test_chat_line_is_a_command_only_if_it_begins_with_a_known_command(
    text: str, command: tuple[str, str] | None
):
    assert command_of(text) == command


@pytest.mark.parametrize(
    ("lines", "messages"),
    [
        (["hello"], ["hello"]),
        (['"""one', "", 'two"""', "next"], ["one\n\ntwo", "next"]),
        (['"""', "one", '"""'], ["one"]),
        (['"""one line"""'], ["one line"]),
        (['say """ this'], ['say """ this']),
    ],
)
def test_chat_lines_between_triple_quotes_are_one_message(lines: list[str], messages: list[str]):
    joined = MessageLines()
    assert [message for each in lines if (message := joined.add(each)) is not None] == messages


def test_chat_message_abandoned_within_triple_quotes_adds_no_text_to_the_next_one():
    joined = MessageLines()
    joined.add('"""one')
    joined.abandon()
    assert joined.add("two") == "two"


def killed(text: str, undisturbed: str, kept: int) -> Killed:
    return Killed(text, undisturbed, 9, kept, 4, old_pid=7, new_pid=8, pause_s=0.61)


def test_demo_kills_the_engine_amid_a_sentence_after_some_tokens_or_anywhere_after_many_tokens():
    assert not is_within_sentence("Too early", 3)
    assert not is_within_sentence("A whole sentence. ", 30)
    assert is_within_sentence("A whole sentence. And half", 30)
    assert is_within_sentence("Sentence. Sentence.", 60)


def test_demo_pause_is_the_longest_gap_between_pieces_after_the_kill():
    assert pause_after(10.0, [9.0, 10.1, 10.2, 11.4, 11.5]) == pytest.approx(1.2)
    assert pause_after(10.0, [9.0]) == 0.0


def test_demo_whose_answer_equals_the_uninterrupted_answer_reports_no_lost_or_repeated_token():
    demo = killed("once upon a time", "once upon a time", 6)
    shown = " ".join(report(demo, 1000))
    assert survived(demo)
    assert "PID 7" in shown and "PID 8" in shown and "0.61 s" in shown
    assert "No token was lost, none came twice." in shown


def test_demo_reports_interrupted_and_uninterrupted_answers_that_differ_after_the_kill_as_incomparable():
    demo = killed("once upon a hill", "once upon a time", 6)
    assert survived(demo)
    assert "No token was lost" not in " ".join(report(demo, 1000))
    assert "cannot be compared" in " ".join(report(demo, 1000))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("once u", "it did not go on"),
        ("once u upon a time", "it differs from the kill on, one of them earlier"),
    ],
)
def test_demo_fails_if_no_text_follows_the_kill_or_the_text_before_it_differs_from_a_run_without_a_kill(
    text: str, why: str
):
    assert not survived(killed(text, "onc", 6)), why


@pytest.mark.parametrize("width", [1, 40, 100])
def test_demo_report_is_no_wider_than_the_terminal(width: int):
    assert all(len(part) <= max(width, 20) for part in report(killed("ab", "ab", 1), width))


def on_screen(sent: str) -> list[str]:
    """Return the lines that a terminal shows after receiving this text."""
    lines = [""]
    for part in re.findall(r"\x1b\[(\d+)D\x1b\[K|(.)", sent, re.DOTALL):
        if part[0]:
            lines[-1] = lines[-1][: -int(part[0])]
        elif part[1] == "\n":
            lines.append("")
        else:
            lines[-1] += part[1]
    return lines


@pytest.mark.parametrize("width", [12, 20, 40, 100])
@pytest.mark.parametrize("piece", [1, 2, 3, 7, 1000])
def test_chat_word_wrap_breaks_no_word_wherever_the_streamed_pieces_end(width: int, piece: int):
    text = "The quick brown fox jumped over it, and a night passed before it came to the river.\n\nOne day."
    wrap = WordWrap()
    sent = "".join(wrap.feed(text[at : at + piece], width) for at in range(0, len(text), piece))
    assert " ".join(on_screen(sent)).split() == text.split()
    assert all(len(shown) < width for shown in on_screen(sent))


def test_chat_word_wrap_cuts_a_word_longer_than_a_line_without_losing_characters():
    shown = on_screen(WordWrap().feed("a " + "x" * 30, 10))
    assert "".join(shown).replace(" ", "") == "a" + "x" * 30
    assert all(len(line) < 10 for line in shown)


def test_ask_for_line_ends_the_bold_before_a_visible_character(monkeypatch: pytest.MonkeyPatch):
    """libedit drops characters of no width at the end of a prompt, and all that followed was bold."""
    shown: list[str] = []
    monkeypatch.setattr(prompt, "can_show_live", lambda: True)
    monkeypatch.setattr("builtins.input", shown.append)
    prompt.ask_for_line(">>> ")
    assert shown == ["\001\x1b[1m\002>>>\001\x1b[0m\002 "]


@pytest.mark.parametrize(("tokens", "counts"), [(None, False), (0, True), (7, True)])
def test_demo_is_refused_beside_an_answer_but_not_beside_texts_to_embed(tokens, counts):
    """After the first `make up`, the README's next command was refused for half a minute, because the
    orchestrator's knowledge was being embedded.
    """
    running = [{"client": "vestal-orchestrator", "tokens": tokens}]
    gateway: Any = SimpleNamespace(get=lambda path: {"requests": running})
    if not counts:
        return demo._check_alone(gateway)
    with pytest.raises(NotPossible, match=r"works on 1 request of vestal-orchestrator.* --yes"):
        demo._check_alone(gateway)
