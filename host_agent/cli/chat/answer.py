"""What happens to an answer while it is streamed, and how its frames are read. Pure.

The answers are those of Ollama's API: a frame is a line with one JSON object.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Piece:
    """A piece of the answer, or of what the model thinks before it."""

    text: str
    is_thought: bool = False


@dataclass(frozen=True)
class Finished:
    """The end of the answer, with the number of its tokens and why it ended (`stop`, `length`)."""

    tokens: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Failed:
    """The answer ends here; the sentence says why."""

    sentence: str


@dataclass(frozen=True)
class GatewayLost:
    """The connection has broken; the rest of the answer is asked for until it is there."""

    reason: str


@dataclass(frozen=True)
class GatewayBack:
    """The stream goes on after GatewayLost."""


@dataclass(frozen=True)
class EngineDied:
    """The engine has ended. `cause` is in words, such as `killed by SIGKILL`."""

    pid: int
    cause: str


@dataclass(frozen=True)
class EngineStarted:
    """Another engine has started."""

    pid: int


Happening = Piece | Finished | Failed | GatewayLost | GatewayBack | EngineDied | EngineStarted


@dataclass(frozen=True)
class Frame:
    """What one line of the stream holds. `is_last` ends the stream."""

    happenings: list[Happening] = field(default_factory=list)
    is_last: bool = False


def read_frame(line: bytes) -> Frame:
    """Return what a line of the stream says; a line that is not JSON says nothing."""
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
    """Return the sentence of an error in the body of an answer, in Ollama's form or in Vestal's own."""
    error = body.get("error")
    sentence = error.get("message") if isinstance(error, dict) else error
    return str(sentence or "The MLX server gave no reason.")


def engine_happening(event: dict[str, Any]) -> EngineDied | EngineStarted | None:
    """Return what an event of the gateway says about the engine's process; None for most."""
    pid = (event.get("fields") or {}).get("pid")
    if event.get("component") != "mlx_engine" or not isinstance(pid, int):
        return None
    if event.get("event") == "child_exited":
        return EngineDied(pid, str(event.get("cause") or "for an unknown reason"))
    return EngineStarted(pid) if event.get("event") == "child_started" else None
