"""Assemble a model's answer that a backend streams as lines of JSON (Ollama's /api/chat). Pure."""

from __future__ import annotations

import json
from typing import Any

from orchestrator.errors import BackendFailed

MAX_BYTES = 16 * 2**20  # a backend that never stops must not fill this process's memory


class ChatStream:
    """One streamed answer of a model, assembled from its bytes as they arrive. It is complete only if the
    backend marked it `done`. `backend` is the backend's name, for error messages.
    """

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self._rest = b""
        self._texts: list[str] = []
        self._bytes = 0
        self._done = False

    def take(self, data: bytes) -> bool:
        """Add received bytes. Return False if they are only white space, which does not show that the backend
        is working; True otherwise. Raises BackendFailed if a line is not a JSON object or reports an error,
        or if the answer becomes too long.
        """
        self._bytes += len(data)
        if self._bytes > MAX_BYTES:
            raise BackendFailed(f"{self._backend} sent more than {MAX_BYTES} bytes for one answer.")
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._line(line)
        return bool(data.strip())

    def end(self) -> str:
        """Return the text of the whole answer, after the backend closed the stream. Raises BackendFailed if
        the last line is malformed, or if the backend did not mark the answer `done`.
        """
        self._line(self._rest)
        if not self._done:
            raise BackendFailed(f"{self._backend} broke off its answer after {len(self._texts)} line(s).")
        return "".join(self._texts)

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
            raise BackendFailed(
                f"{self._backend} failed in the middle of its answer: {_message_of(part['error'])}"
            )
        message = part.get("message")
        self._texts.append(str(message.get("content") or "") if isinstance(message, dict) else "")
        self._done = self._done or part.get("done") is True


def _message_of(error: object) -> str:
    """Return the message in an error, which is a string from Ollama, and an object with a `message` from
    other servers.
    """
    found = error.get("message") if isinstance(error, dict) else error
    return str(found or error)[:400]
