"""Stream the story of `vestal demo`, and kill the engine that generates it."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable

from host_agent.cli.chat import demo_report
from host_agent.cli.chat.answer import Failed, Finished, Piece
from host_agent.cli.chat.answer_stream import AnswerStream
from host_agent.cli.chat.answer_view import ALARM, AnswerView, Shown
from host_agent.cli.gateway import GatewayClient
from host_agent.cli.screen.styled import can_show_live, unguarded
from host_agent.errors import GatewayUnreachable

READY_STATES = ("ready", "busy")


def engine_pid(gateway: GatewayClient) -> int:
    """Return the engine's PID. Raises GatewayUnreachable if the engine is neither ready nor busy."""
    engine = gateway.health().get("engine") or {}
    if engine.get("state") not in READY_STATES or not engine.get("pid"):
        state = engine.get("state") or "away"
        raise GatewayUnreachable(f"The engine is {state}: wait until `vestal status` shows it as ready.")
    return int(engine["pid"])


class Story:
    """Streams one story, and records when its engine was killed and what had arrived by then."""

    def __init__(self, gateway: GatewayClient, model: str, prompt: str, tokens: int) -> None:
        self._gateway = gateway
        self._body = {
            "model": model,
            "messages": [{"role": "user", "content": prompt}],
            "stream": True,
            "options": {"temperature": 0, "seed": 1, "num_predict": tokens},
        }
        self.shown = Shown()
        self._killed_at: float | None = None
        self._pid = 0
        self._kept = (0, 0)

    def tell(self, kill: Callable[[int], None] | None) -> Shown:
        """Have the model write the story, wait until it is complete or has failed, and return what has
        arrived.

        With `kill`, show the story as it arrives. In the middle of a sentence, call `kill` once with the
        engine's PID, to demonstrate that the story continues; raises GatewayUnreachable if there is no ready
        engine then. If `kill` is None, do not show the story, but only, on a terminal, how many tokens have
        arrived.
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
        if kill is None:
            _end_progress()
        return view.shown

    @property
    def was_interrupted(self) -> bool:
        """Return whether the engine was killed while this story was generated, and the gateway reported the
        engine's death before the story ended.
        """
        return self._killed_at is not None and any(engine.pid == self._pid for engine in self.shown.died)

    def result(self, undisturbed: Shown) -> demo_report.Killed:
        """Return the data for the report of `vestal demo` about this story. The story must be complete, and
        its engine must have been killed.

        `undisturbed` is what arrived of the same story in a second run, without a kill. The report compares
        the texts of the two runs.
        """
        assert self._killed_at is not None and self.shown.finished is not None
        started = [engine.pid for engine in self.shown.started if engine.pid != self._pid]
        return demo_report.Killed(
            text=self.shown.text,
            undisturbed=undisturbed.text,
            tokens=self.shown.finished.tokens,
            kept_characters=self._kept[0],
            kept_tokens=self._kept[1],
            old_pid=self._pid,
            new_pid=started[-1] if started else None,
            pause_s=demo_report.pause_after(self._killed_at, [at for at, _ in self.shown.pieces]),
        )

    def _kill_within_sentence(self, view: AnswerView, kill: Callable[[int], None]) -> None:
        tokens = len(view.shown.pieces)
        if self._killed_at is not None or not demo_report.is_within_sentence(view.shown.text, tokens):
            return
        self._pid = engine_pid(self._gateway)
        view.remark(f" ⟨SIGKILL to PID {self._pid}⟩", ALARM)
        self._kept = (len(view.shown.text), tokens)
        self._killed_at = time.monotonic()
        kill(self._pid)


def _record(shown: Shown, happening: object) -> None:
    """Record an event of an answer in `shown` without printing the event."""
    match happening:
        case Piece(text, is_thought) if not is_thought:
            shown.text += text
            shown.pieces.append((time.monotonic(), text))
        case Finished():
            shown.finished = happening
        case Failed(sentence):
            shown.failure = sentence


def _show_progress(tokens: int) -> None:
    """Redraw the progress line of a story that is generated again without killing the engine, for comparison.
    `tokens` is the number of tokens that have arrived.
    """
    if can_show_live():
        text = f"The same again, without a kill, to compare: {tokens} tokens"
        stdout = unguarded(sys.stdout)
        stdout.write(f"\r{text[: shutil.get_terminal_size().columns - 1]}\x1b[K")
        stdout.flush()


def _end_progress() -> None:
    if can_show_live():
        unguarded(sys.stdout).write("\r\x1b[K")
