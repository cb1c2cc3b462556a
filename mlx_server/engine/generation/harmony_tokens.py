"""The special tokens of OpenAI's Harmony format and of Muse Spark's, and the place in an answer at which a
request's grammar begins to apply: the first message that is not thinking. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

NONE = -1
"""Stands for a token that a format does not have."""


@dataclass(frozen=True)
class HarmonyTokens:
    """The ids of the special tokens of Harmony, or of Muse Spark's format.

    Muse Spark's format has no channels; there, a message to `self` is thinking. A token that the format lacks
    is NONE. `analysis` are the tokens that mark a message as thinking: in Harmony, they are at the beginning
    of the channel; in Muse Spark's format, anywhere in the header.
    """

    start: int
    channel: int
    message: int
    end: int
    call: int
    return_: int
    constrain: int
    analysis: tuple[int, ...]

    @property
    def has_channels(self) -> bool:
        """Return True if the format is Harmony, and False if it is Muse Spark's."""
        return self.channel != NONE

    @property
    def controls(self) -> frozenset[int]:
        """Return all special tokens that the format has."""
        others = {self.start, self.channel, self.message, self.constrain}
        return frozenset({*others, *self.ends_of_message} - {NONE})

    def is_of_thinking(self, header: tuple[int, ...]) -> bool:
        """Return whether a message with the header tokens `header` is thinking."""
        length = len(self.analysis)
        places = (0,) if self.has_channels else range(len(header) - length + 1)
        return any(header[at : at + length] == self.analysis for at in places)

    @property
    def ends_of_message(self) -> frozenset[int]:
        """Return the ids of the tokens that end a message. Muse Spark's format has no token for the end of a
        call; the ids then include NONE instead, which is the id of no token.
        """
        return frozenset({self.end, self.call, self.return_})

    @property
    def ends_of_answer(self) -> frozenset[int]:
        """Return the tokens that end the answer, so that it is the client's turn."""
        return frozenset({self.call, self.return_} - {NONE})


def find_harmony_tokens(tokenizer: Any) -> HarmonyTokens | None:
    """Return the special tokens of Harmony or of Muse Spark's format; None if the tokenizer has neither."""
    names = ("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|call|>", "<|return|>", "<|constrain|>")
    # Reading the whole vocabulary takes 0.1 s, and special tokens are among the few that were added to it.
    added: dict[str, int] = getattr(tokenizer, "added_tokens_encoder", {})
    muse = ("<|start|>", "<|message|>", "<|eom|>", "<|eot|>")
    if not all(name in added for name in names):
        if not all(name in added for name in muse):
            return None
        start, message, end, return_ = (added[name] for name in muse)
        thinking = tuple(tokenizer.encode(" to=self", add_special_tokens=False))
        return HarmonyTokens(start, NONE, message, end, NONE, return_, NONE, thinking)
    start, channel, message, end, call, return_, constrain = (added[name] for name in names)
    analysis = tuple(tokenizer.encode("analysis", add_special_tokens=False))
    return HarmonyTokens(start, channel, message, end, call, return_, constrain, analysis)


class HarmonyGate:
    """Finds where an answer's grammar begins to apply: at the answer's first message that is not thinking.

    With `is_exempt`, calls and the preambles before them are passed over like thinking, because the grammar
    is that of an answer to the user. `is_exempt` is called with a part of a message's header, without special
    tokens: the part before `<|channel|>` or the part after it. It returns whether that part shows that the
    message is a call or a preamble.
    """

    def __init__(
        self, tokens: HarmonyTokens, is_exempt: Callable[[Sequence[int]], bool] | None = None
    ) -> None:
        self._tokens, self._is_exempt = tokens, is_exempt
        self._before_channel: tuple[int, ...] = ()
        self._header: tuple[int, ...] | None = ()  # from <|channel|> on, if there is one; None in a message

    def opens_after(self, token: int) -> bool:
        """Advance by `token`. Return True if the grammar applies to the next token, which is then the first
        of a message.
        """
        if token == self._tokens.channel:
            self._before_channel, self._header = self._header or (), ()
        elif token == self._tokens.start:
            self._before_channel, self._header = (), ()
        elif token == self._tokens.message:
            header, self._header = self._header or (), None
            if self._is_exempt is not None and any(map(self._is_exempt, (self._before_channel, header))):
                return False
            return not self._tokens.is_of_thinking(header)
        elif token in self._tokens.ends_of_message:
            self._header = None
        elif self._header is not None and token not in self._tokens.controls:
            self._header = (*self._header, token)
        return False
