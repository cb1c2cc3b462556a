"""Requests for streams in every dialect, and a client that reads their frames."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx

Body = Callable[..., dict[str, Any]]


def messages(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "chat", "messages": [{"role": "user", "content": text}], "max_tokens": 5000, **more}


def prompt_body(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "chat", "prompt": text, **more}


ROUTES: dict[str, Body] = {
    "/v1/chat/completions": messages,
    "/v1/messages": messages,
    "/v1/completions": lambda text, **more: prompt_body(text, max_tokens=5000, **more),
    "/v1/responses": lambda text, **more: {"model": "chat", "input": text, **more},
    "/api/chat": messages,
    "/api/generate": prompt_body,
}
VOLATILE = {
    "total_duration",
    "load_duration",
    "prompt_eval_duration",
    "eval_duration",
    "created_at",
    "completed_at",
}


def frames_of(content: bytes) -> list[bytes]:
    """Return the frames of a stream: lines of NDJSON, or server-sent events."""
    separator = b"\n\n" if content.startswith((b"data:", b"event:")) else b"\n"
    return [frame + separator for frame in content.split(separator) if frame]


def without_figures(value: Any) -> Any:
    """Return JSON without the figures that say how long its making took."""
    if isinstance(value, dict):
        return {name: without_figures(each) for name, each in value.items() if name not in VOLATILE}
    return [without_figures(each) for each in value] if isinstance(value, list) else value


def plain(frame: bytes) -> Any:
    text = frame.decode().strip()
    head, _, data = text.rpartition("data: ")
    return head, without_figures(json.loads(data)) if data != "[DONE]" else data


def same_frames(frames: list[bytes], others: list[bytes]) -> bool:
    return list(map(plain, frames)) == list(map(plain, others))


class Stream:
    """A streamed answer that is read in a thread, frame by frame, until it ends, is cut off, or is left."""

    def __init__(self, http: httpx.Client, path: str, body: dict[str, Any], **headers: str) -> None:
        self.content = b""
        self.id = ""
        self.is_cut = False
        self._left = False
        self._thread = threading.Thread(target=self._read, args=(http, path, body, headers))
        self._thread.start()

    def _read(self, http: httpx.Client, path: str, body: dict[str, Any], headers: dict[str, str]) -> None:
        try:
            with http.stream("POST", path, json=body, headers=headers) as answer:
                self.id = answer.headers["x-request-id"]
                for piece in answer.iter_raw():
                    self.content += piece
                    if self._left:
                        return
        except httpx.HTTPError:
            self.is_cut = True

    @property
    def frames(self) -> list[bytes]:
        """Return the frames that have arrived whole."""
        content = self.content  # the thread adds to it meanwhile
        frames = frames_of(content)
        return frames if frames and content.endswith(frames[-1][-2:]) else frames[:-1]

    def until(self, count: int) -> Stream:
        deadline = time.monotonic() + 60
        while len(self.frames) < count:
            assert time.monotonic() < deadline, self.content
            time.sleep(0.005)
        return self

    def leave(self) -> None:
        self._left = True
        self.join()

    def join(self) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive()


def text_of_frames(frames: list[bytes]) -> str:
    """Return the text of a stream in any dialect."""
    text = ""
    for frame in frames:
        data = plain(frame)[1]
        if not isinstance(data, dict) or "error" in data:
            assert data == "[DONE]", data
            continue
        choice = (data.get("choices") or [{}])[0]
        delta = data.get("delta")
        text += choice.get("text") or choice.get("delta", {}).get("content") or ""
        text += data.get("response", "") if isinstance(data.get("response"), str) else ""
        text += data.get("message", {}).get("content") or "" if "done" in data else ""
        text += delta if isinstance(delta, str) else (delta or {}).get("text", "")
    return text
