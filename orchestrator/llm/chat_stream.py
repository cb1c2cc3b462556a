"""Assemble a model's answer that a backend streams as lines of JSON (Ollama's /api/chat). Pure."""

from __future__ import annotations

import json
from typing import Any

from orchestrator.errors import BackendFailed
from orchestrator.llm.refusals import stream_error

MAX_BYTES = 16 * 2**20  # a backend that never stops must not fill this process's memory
THINK_START, THINK_END = "<think>", "</think>"


class ChatStream:
    """One streamed answer of a model, assembled from its bytes as they arrive. It is complete only if the
    backend marked it `done`. `backend` is the backend's name, for error messages.

    `thought` is True if the model thought before it answered, and `cut_off` if the limit of tokens ended the
    answer. A model may think although the request forbids it.
    """

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self._rest = b""
        self._texts: list[str] = []
        self._bytes = 0
        self._done = False
        self.thought = False
        self.cut_off = False

    def take(self, data: bytes) -> bool:
        """Add received bytes. Return False if they are only white space, which does not show that the backend
        is working; True otherwise. Raises BackendFailed if a line is not a JSON object, or if the answer
        becomes too long, and the fitting BackendError if a line reports an error.
        """
        self._bytes += len(data)
        if self._bytes > MAX_BYTES:
            raise BackendFailed(f"{self._backend} sent more than {MAX_BYTES} bytes for one answer.")
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._line(line)
        return bool(data.strip())

    def end(self) -> str:
        """Return the text of the whole answer without the model's thinking, after the backend closed the
        stream. Raises BackendFailed if the last line is malformed, or if the backend did not mark the answer
        `done`.
        """
        self._line(self._rest)
        if not self._done:
            raise BackendFailed(f"{self._backend} broke off its answer after {len(self._texts)} line(s).")
        text = "".join(self._texts)
        if text.lstrip().startswith(THINK_START):  # Ollama, if the model thinks although it was asked not to
            self.thought = True
            text = text.partition(THINK_END)[2]
        return text

    def _line(self, line: bytes) -> None:
        if not line.strip():
            return
        try:
            part: Any = json.loads(line)
        except (ValueError, RecursionError):
            part = None
        if not isinstance(part, dict):
            raise BackendFailed(f"{self._backend} sent a line that is not a JSON object in its answer.")
        if part.get("error"):
            raise stream_error(self._backend, part)
        message = part.get("message")
        if isinstance(message, dict):
            self._texts.append(str(message.get("content") or ""))
            self.thought = self.thought or bool(message.get("thinking"))
        self._done = self._done or part.get("done") is True
        self.cut_off = self.cut_off or part.get("done_reason") == "length"
