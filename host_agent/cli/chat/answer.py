"""Parse the lines of a streamed answer into events. Pure.

Answers have the format of Ollama's /api/chat: each line of the stream, called a frame, is one JSON object.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Piece:
    """A piece of the answer's text, or of the model's thinking before it."""

    text: str
    is_thought: bool = False


@dataclass(frozen=True)
class Finished:
    """The end of the answer: the number of its tokens, and the reason (`stop` or `length`)."""

    tokens: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Failed:
    """The answer has failed; `sentence` says why."""

    sentence: str


@dataclass(frozen=True)
class GatewayLost:
    """The connection to the gateway broke, for the `reason`. The rest of the answer is then requested again
    until the gateway sends it, refuses it, or has not answered for too long.
    """

    reason: str


@dataclass(frozen=True)
class GatewayBack:
    """The stream has continued after a GatewayLost."""


@dataclass(frozen=True)
class EngineDied:
    """The engine's process has ended. `cause` says how in words, such as `killed by SIGKILL`."""

    pid: int
    cause: str


@dataclass(frozen=True)
class EngineStarted:
    """A new engine process has started."""

    pid: int


Happening = Piece | Finished | Failed | GatewayLost | GatewayBack | EngineDied | EngineStarted


@dataclass(frozen=True)
class Frame:
    """The events in one line of the stream. If `is_last`, the stream is complete."""

    happenings: list[Happening] = field(default_factory=list)
    is_last: bool = False


def read_frame(line: bytes) -> Frame:
    """Parse one line of the stream. A line that is not a JSON object gives an empty frame."""
    try:
        frame = json.loads(line)
    except ValueError:
        return Frame()
    if not isinstance(frame, dict):
        return Frame()
    if frame.get("error"):
        return Frame([Failed(error_sentence(frame))], is_last=True)
    message = frame.get("message") or {}
    happenings: list[Happening] = []
    if message.get("thinking"):
        happenings.append(Piece(str(message["thinking"]), is_thought=True))
    if message.get("content"):
        happenings.append(Piece(str(message["content"])))
    if frame.get("done"):
        finished = Finished(int(frame.get("eval_count") or 0), str(frame.get("done_reason") or ""))
        return Frame([*happenings, finished], is_last=True)
    return Frame(happenings)


def error_sentence(body: dict[str, Any]) -> str:
    """Return the error message in the body of a response, whose `error` is a string (Ollama) or an object
    with `message`.
    """
    error = body.get("error")
    sentence = error.get("message") if isinstance(error, dict) else error
    return str(sentence or "The MLX server gave no reason.")


def engine_happening(event: dict[str, Any]) -> EngineDied | EngineStarted | None:
    """Return the death or start of the engine if the gateway's event `event` reports one; else None."""
    pid = (event.get("fields") or {}).get("pid")
    if event.get("component") != "mlx_engine" or not isinstance(pid, int):
        return None
    if event.get("event") == "child_exited":
        return EngineDied(pid, str(event.get("cause") or "for an unknown reason"))
    return EngineStarted(pid) if event.get("event") == "child_started" else None
