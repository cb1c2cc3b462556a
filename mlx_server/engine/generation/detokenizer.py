"""Turn the token ids of one answer into text, up to the first stop string. Pure.

Two kinds of text are withheld for a while: a character whose bytes are incomplete, and text that may turn out
to be the beginning of a stop string. Stop strings are matched on the text, so it does not matter how they
were tokenized. Text that is still withheld when the generation ends belongs to the answer, and `flush`
returns it. A character that is incomplete at that time, because the token limit fell within it, is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]
_INCOMPLETE = "\ufffd"
_CONTEXT_TOKENS = 4


class Detokenizer:
    """Turns the tokens of one answer into text. `decode` turns token ids into text.

    `context` holds the last tokens of a prompt whose text the answer continues. They are decoded together
    with the answer's first tokens, because some tokenizers drop a space at the start of what they decode.

    When a stop string is complete, `stopped` becomes True, and `stopped_by` becomes that stop string.
    """

    def __init__(self, decode: Decode, stop: Sequence[str] = (), context: Sequence[int] = ()) -> None:
        self._decode = decode
        self._stop = tuple(text for text in stop if text)
        self._window = list(context[-_CONTEXT_TOKENS:])
        # The first tokens of the window are only context: their text was decoded before.
        self._context_tokens = len(self._window)
        self._context_chars = len(decode(self._window)) if self._window else 0
        self._withheld = ""
        self.stopped = False
        self.stopped_by: str | None = None

    def push(self, token: int) -> str:
        """Append `token` to the answer, and return the text that can be released; "" if all of it is
        withheld.
        """
        self._window.append(token)
        text = self._decode(self._window)
        if text.endswith(_INCOMPLETE) or len(text) <= self._context_chars:
            return ""
        new = text[self._context_chars :]
        # The tokens just decoded are the context of the next ones: decoding depends on neighbors.
        self._window = self._window[self._context_tokens :]
        self._context_tokens = len(self._window)
        self._context_chars = len(self._decode(self._window))
        return self._up_to_stop_string(new)

    def flush(self) -> str:
        """End the answer, and return the withheld text; "" after a stop string.

        An incomplete character is dropped, because it would be shown as U+FFFD.
        """
        if self.stopped:
            return ""
        rest = self._decode(self._window)[self._context_chars :] if self._window else ""
        rest = rest.rstrip(_INCOMPLETE)
        text = self._up_to_stop_string(rest)
        withheld, self._withheld = self._withheld, ""
        self._window, self._context_tokens, self._context_chars = [], 0, 0
        return text if self.stopped else text + withheld

    def _up_to_stop_string(self, new: str) -> str:
        """Append `new` to the withheld text, and return the part that can be released. If a stop string is
        complete, return the text before it, and set `stopped` and `stopped_by`.
        """
        pending = self._withheld + new
        matches = [(at, stop) for stop in self._stop if (at := pending.find(stop)) >= 0]
        if matches:
            first, self.stopped_by = min(matches)
            self.stopped, self._withheld = True, ""
            return pending[:first]
        cut = len(pending) - max((partial_match_length(pending, stop) for stop in self._stop), default=0)
        self._withheld = pending[cut:]
        return pending[:cut]


def partial_match_length(text: str, pattern: str) -> int:
    """Return the length of the longest suffix of `text` that is a proper prefix of `pattern`."""
    longest = min(len(text), len(pattern) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(pattern[:n])), 0)
