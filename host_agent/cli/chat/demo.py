"""`vestal demo`: let a model write a story, kill the engine in mid-sentence, and show that the story
continues.

The exit code is 0 if the story continued and nothing was lost, else 1.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from typing import Any

from host_agent.agent_client import AgentClient
from host_agent.cli.chat import demo_report
from host_agent.cli.chat.answer import Failed, Finished, Piece
from host_agent.cli.chat.answer_stream import AnswerStream
from host_agent.cli.chat.answer_view import ALARM, AnswerView, Shown
from host_agent.cli.chat.chat import choose_model
from host_agent.cli.gateway import GatewayClient
from host_agent.cli.screen.styled import print_lines, wrapped
from host_agent.errors import GatewayUnreachable, HostAgentError, NoFittingModel, NotPossible
from vestal.config import Config, ConfigError

BUILT_IN_MODEL = "smollm2:135m"
STORY = "Tell me a story about a fox that crosses a river at night."
STORY_TOKENS = 100
LOST = 1
READY_STATES = ("ready", "busy")


def run(options: argparse.Namespace, config: Config) -> int:
    gateway = GatewayClient(config)
    _check_engine(gateway)
    model = _model(gateway)
    if not options.yes:
        _check_alone(gateway)
    width = shutil.get_terminal_size().columns
    title = f"{model} tells a story. Its engine will be killed in mid-sentence."
    print_lines([*wrapped([(title, "bold")], width), []])
    killed_run = _Story(gateway, model)
    shown = killed_run.tell(lambda pid: kill_engine(config, pid))
    print("\n")
    if shown.failure:
        raise HostAgentError(f"The story did not go on: {shown.failure}")
    if killed_run.killed_at is None:
        raise HostAgentError("The story ended before its engine could be killed: run `vestal demo` again.")
    undisturbed = _Story(gateway, model)
    undisturbed.tell(None)
    _end_progress()
    result = killed_run.result(undisturbed.shown)
    lines = demo_report.report(result, width)
    is_proven = demo_report.survived(result)
    print_lines([(line, "green" if is_proven else "yellow")] for line in lines)
    return 0 if is_proven else LOST


def kill_engine(config: Config, pid: int) -> None:
    """Kill the engine through the agent, which records that a person did it; without an agent, by a signal.

    Raises NotPossible if the engine belongs to another user.
    """
    with suppress(HostAgentError, ConfigError):
        AgentClient(config).post("/services/mlx_engine/kill")
        return
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # the engine died just before, which shows the same
    except PermissionError:
        raise NotPossible(f"The engine (PID {pid}) belongs to another user, who has to run this.") from None


def _check_engine(gateway: GatewayClient) -> dict[str, Any]:
    """Return the engine's part of GET /health. Raises GatewayUnreachable if the engine cannot serve now."""
    engine = dict(gateway.get("/health").get("engine") or {})
    if engine.get("state") not in READY_STATES or not engine.get("pid"):
        state = engine.get("state") or "away"
        raise GatewayUnreachable(f"The engine is {state}: wait until `vestal status` shows it as ready.")
    return engine


def _model(gateway: GatewayClient) -> str:
    """Return the name of the small built-in model, or of another one if it is not installed."""
    try:
        return choose_model(gateway, BUILT_IN_MODEL)
    except NoFittingModel:
        return choose_model(gateway, None)


def _check_alone(gateway: GatewayClient) -> None:
    """Raise NotPossible if other requests run: they would survive the kill, but be delayed by it."""
    others = gateway.get("/requests").get("requests") or []
    if others:
        clients = sorted({str(request.get("client") or "an unknown program") for request in others})
        count = f"{len(others)} request{'s' * (len(others) > 1)} of {', '.join(clients)}"
        raise NotPossible(
            f"The engine works on {count}, which would have to wait for its next start: come back later, or"
            " run `vestal demo --yes`."
        )


class _Story:
    """One answer, and the moment at which its engine was killed."""

    def __init__(self, gateway: GatewayClient, model: str) -> None:
        self._gateway = gateway
        self._body = {
            "model": model,
            "messages": [{"role": "user", "content": STORY}],
            "stream": True,
            "options": {"temperature": 0, "seed": 1, "num_predict": STORY_TOKENS},
        }
        self._view: AnswerView | None = None
        self.shown = Shown()
        self.killed_at: float | None = None
        self._pid = 0
        self._kept = (0, 0)

    def tell(self, kill: Any) -> Shown:
        """Stream the story, and call `kill` with the engine's PID in the middle of a sentence.

        Without `kill`, only the number of tokens is shown, and only on a terminal.
        """
        stream = AnswerStream(self._gateway, self._body)
        view = AnswerView()
        self.shown = view.shown
        stream.start()
        try:
            while view.shown.finished is None and not view.shown.failure:
                happening = stream.happenings.get()
                if kill is not None:
                    view.show(happening)
                    self._kill_within_sentence(view, kill)
                else:
                    _record(view.shown, happening)
                    _show_progress(len(view.shown.pieces))
        except BaseException:
            stream.cancel()
            raise
        return view.shown

    def result(self, undisturbed: Shown) -> demo_report.Killed:
        """Return the result for the report; `undisturbed` is the story of the run without a kill."""
        assert self.killed_at is not None and self.shown.finished is not None
        started = [engine.pid for engine in self.shown.started if engine.pid != self._pid]
        return demo_report.Killed(
            text=self.shown.text,
            undisturbed=undisturbed.text,
            tokens=self.shown.finished.tokens,
            undisturbed_tokens=undisturbed.finished.tokens if undisturbed.finished else 0,
            kept_characters=self._kept[0],
            kept_tokens=self._kept[1],
            old_pid=self._pid,
            new_pid=started[-1] if started else None,
            pause_s=demo_report.pause_after(self.killed_at, [at for at, _ in self.shown.pieces]),
        )

    def _kill_within_sentence(self, view: AnswerView, kill: Any) -> None:
        tokens = len(view.shown.pieces)
        if self.killed_at is not None or not demo_report.is_within_sentence(view.shown.text, tokens):
            return
        self._pid = int(_check_engine(self._gateway)["pid"])
        view.remark(f" ⟨SIGKILL to PID {self._pid}⟩", ALARM)
        self._kept = (len(view.shown.text), tokens)
        self.killed_at = time.monotonic()
        kill(self._pid)


def _record(shown: Shown, happening: object) -> None:
    """Record an event of an answer that is not printed."""
    match happening:
        case Piece(text, is_thought) if not is_thought:
            shown.text += text
            shown.pieces.append((time.monotonic(), text))
        case Finished():
            shown.finished = happening
        case Failed(sentence):
            shown.failure = sentence


def _show_progress(tokens: int) -> None:
    """Redraw the progress line of the second story, which is written without a kill, for comparison."""
    if sys.stdout.isatty():
        text = f"The same again, without a kill, to compare: {tokens} tokens"
        sys.stdout.write(f"\r{text[: shutil.get_terminal_size().columns - 1]}\x1b[K")
        sys.stdout.flush()


def _end_progress() -> None:
    if sys.stdout.isatty():
        sys.stdout.write("\r\x1b[K")
