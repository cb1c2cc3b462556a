"""Token ids in, text out: one per request. Pure.

Two things are held back: bytes of a character that is not complete yet, and text that may turn out to be the
start of a stop string. Stop strings are matched on the text, so it does not matter how they were tokenized.
What is still held when generation ends belongs to the answer: `flush`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]
_INCOMPLETE = "\ufffd"
_CONTEXT_TOKENS = 4


class Detokenizer:
    """`decode` turns ids into text. `context` is the end of a prompt whose text the answer continues.

    Some tokenizers drop a space at the start of what they decode; with the context before it, it is kept.
    """

    def __init__(self, decode: Decode, stop: Sequence[str] = (), context: Sequence[int] = ()) -> None:
        self._decode = decode
        self._stop = tuple(text for text in stop if text)
        self._window = list(context[-_CONTEXT_TOKENS:])
        self._done = len(self._window)  # tokens of the window whose text is out
        self._done_chars = len(decode(self._window)) if self._window else 0
        self._held = ""
        self.stopped = False
        self.stopped_by: str | None = None

    def push(self, token: int) -> str:
        """The text that `token` releases, perhaps none. Sets `stopped` where a stop string is complete."""
        self._window.append(token)
        text = self._decode(self._window)
        if text.endswith(_INCOMPLETE) or len(text) <= self._done_chars:
            return ""
        new = text[self._done_chars :]
        # The tokens before last stay as context for the next: decoding depends on neighbors.
        self._window = self._window[self._done :]
        self._done = len(self._window)
        self._done_chars = len(self._decode(self._window))
        return self._match(new)

    def flush(self) -> str:
        """The text still held, once no more tokens come. Nothing after a stop string."""
        if self.stopped:
            return ""
        rest = self._decode(self._window)[self._done_chars :] if self._window else ""
        text = self._match(rest)
        held, self._held = self._held, ""
        self._window, self._done, self._done_chars = [], 0, 0
        return text if self.stopped else text + held

    def _match(self, new: str) -> str:
        pending = self._held + new
        starts = [(at, stop) for stop in self._stop if (at := pending.find(stop)) >= 0]
        if starts:
            first, self.stopped_by = min(starts)
            self.stopped, self._held = True, ""
            return pending[:first]
        keep = max((_overlap(pending, stop) for stop in self._stop), default=0)
        cut = len(pending) - keep
        self._held = pending[cut:]
        return pending[:cut]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a start of `stop`, but not the whole of it."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
