"""The special tokens of OpenAI's Harmony format and of Muse Spark's, and the point where a grammar begins.
Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

NONE = -1
"""In place of a token that a format does not have."""


@dataclass(frozen=True)
class HarmonyTokens:
    """The ids of the format's special tokens.

    Muse Spark's format has no channels: a message to `self` is thinking. The tokens that a format lacks are
    NONE. `analysis` are the tokens that mark thinking: they stand at the beginning of a channel, or anywhere
    in a header without a channel.
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
        """Return whether the format is Harmony itself."""
        return self.channel != NONE

    @property
    def controls(self) -> frozenset[int]:
        """Return the special tokens."""
        others = {self.start, self.channel, self.message, self.constrain}
        return frozenset({*others, *self.ends_of_message} - {NONE})

    def is_of_thinking(self, header: tuple[int, ...]) -> bool:
        """Return whether a message with these header tokens is thinking."""
        length = len(self.analysis)
        places = (0,) if self.has_channels else range(len(header) - length + 1)
        return any(header[at : at + length] == self.analysis for at in places)

    @property
    def ends_of_message(self) -> frozenset[int]:
        """Return the tokens that end a message."""
        return frozenset({self.end, self.call, self.return_})

    @property
    def ends_of_answer(self) -> frozenset[int]:
        """Return the tokens after which the client has its turn."""
        return frozenset({self.call, self.return_} - {NONE})


def find_harmony_tokens(tokenizer: Any) -> HarmonyTokens | None:
    """Return the ids of the tokens of Harmony, or of Muse Spark, or None if the tokenizer has neither."""
    names = ("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|call|>", "<|return|>", "<|constrain|>")
    # The whole vocabulary takes 0.1 s to read, and special tokens are among the few that were added to it.
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
    """Opens at the first message that is not analysis: a grammar applies from there on."""

    def __init__(self, tokens: HarmonyTokens) -> None:
        self._tokens = tokens
        self._header: tuple[int, ...] | None = ()  # from <|channel|> on, if there is one; None in a message

    def opens_after(self, token: int) -> bool:
        """Continue with `token`; return True if the next token is the first of such a message."""
        if token in (self._tokens.channel, self._tokens.start):
            self._header = ()
        elif token == self._tokens.message:
            header, self._header = self._header or (), None
            return not self._tokens.is_of_thinking(header)
        elif token in self._tokens.ends_of_message:
            self._header = None
        elif self._header is not None and token not in self._tokens.controls:
            self._header = (*self._header, token)
        return False
