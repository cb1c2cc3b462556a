"""The special tokens of OpenAI's Harmony format, and where a grammar begins in its answers. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class HarmonyTokens:
    """The ids of the format's special tokens. `analysis` are the tokens of that word."""

    start: int
    channel: int
    message: int
    end: int
    call: int
    return_: int
    constrain: int
    analysis: tuple[int, ...]

    @property
    def controls(self) -> frozenset[int]:
        """Return the special tokens."""
        return frozenset({self.start, self.channel, self.message, self.constrain, *self.ends_of_message})

    @property
    def ends_of_message(self) -> frozenset[int]:
        """Return the tokens that end a message."""
        return frozenset({self.end, self.call, self.return_})

    @property
    def ends_of_answer(self) -> frozenset[int]:
        """Return the tokens after which the client has its turn."""
        return frozenset({self.call, self.return_})


def find_harmony_tokens(tokenizer: Any) -> HarmonyTokens | None:
    """Return the ids of Harmony's tokens, or None if the tokenizer does not have them all."""
    names = ("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|call|>", "<|return|>", "<|constrain|>")
    # The whole vocabulary takes 0.1 s to read, and special tokens are among the few that were added to it.
    added: dict[str, int] = getattr(tokenizer, "added_tokens_encoder", {})
    if not all(name in added for name in names):
        return None
    start, channel, message, end, call, return_, constrain = (added[name] for name in names)
    analysis = tuple(tokenizer.encode("analysis", add_special_tokens=False))
    return HarmonyTokens(start, channel, message, end, call, return_, constrain, analysis)


class HarmonyGate:
    """Opens at the first message that is not analysis: a grammar applies from there on."""

    def __init__(self, tokens: HarmonyTokens) -> None:
        self._tokens = tokens
        self._channel: tuple[int, ...] | None = None  # what follows <|channel|>; None outside of a header

    def opens_after(self, token: int) -> bool:
        """Continue with `token`; return True if the next token is the first of such a message."""
        if token == self._tokens.channel:
            self._channel = ()
        elif token == self._tokens.message:
            channel, self._channel = self._channel or (), None
            analysis = self._tokens.analysis
            return channel[: len(analysis)] != analysis
        elif token in self._tokens.controls:
            self._channel = self._channel if token == self._tokens.constrain else None
        elif self._channel is not None:
            self._channel = (*self._channel, token)
        return False
