"""Judge an answer whose engine was killed: measure the pause, and compare the text with an undisturbed one.
Pure.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

SENTENCE_ENDS = (".", "!", "?", ":", '"', "”")
LEAST_TOKENS, MOST_TOKENS = 24, 60
"""The engine is killed in the first sentence that is long enough, and before the answer can end."""


@dataclass(frozen=True)
class Killed:
    """The result of the demonstration: the text of the interrupted answer, and that of the undisturbed one.

    `kept_characters` is the length of the text that had arrived before the kill.
    """

    text: str
    undisturbed: str
    tokens: int
    kept_characters: int
    kept_tokens: int
    old_pid: int
    new_pid: int | None
    pause_s: float


def is_within_sentence(text: str, tokens: int) -> bool:
    """Return whether to kill the engine now: some tokens are there, and the last sentence is incomplete."""
    if tokens >= MOST_TOKENS:
        return True
    words = text.rstrip()
    return tokens >= LEAST_TOKENS and bool(words) and not words.endswith(SENTENCE_ENDS)


def pause_after(killed_at: float, arrivals: Sequence[float]) -> float:
    """Return the longest pause between pieces after the kill, in seconds. It need not
    be the first one, because pieces that were sent before the kill may arrive after it.
    """
    times = [killed_at, *(at for at in arrivals if at >= killed_at)]
    return max((later - earlier for earlier, later in zip(times, times[1:], strict=False)), default=0.0)


def survived(killed: Killed) -> bool:
    """Return whether the answer continued after the kill, without repeating or losing text that had arrived.

    A text that differs only after the kill is no fault: computing the same token anew may round differently
    on a GPU or on another machine.
    """
    agreed = agreement(killed.text, killed.undisturbed)
    return len(killed.text) > killed.kept_characters and agreed >= killed.kept_characters


def agreement(one: str, other: str) -> int:
    """Return how many characters at the beginning of two texts are equal."""
    shorter = min(len(one), len(other))
    return next((at for at in range(shorter) if one[at] != other[at]), shorter)


def report(killed: Killed, width: int) -> list[str]:
    """Return what happened, in sentences, for a terminal of `width` columns."""
    by = f"The new engine is PID {killed.new_pid}." if killed.new_pid else "Another engine went on."
    lines = [
        f"The engine (PID {killed.old_pid}) was killed by SIGKILL after {killed.kept_tokens} tokens.",
        f"The stream paused for {killed.pause_s:.2f} s and went on: one request, one connection. {by}",
        _comparison(killed),
    ]
    return [part for line in lines for part in textwrap.wrap(line, max(width, 20), subsequent_indent="  ")]


def _comparison(killed: Killed) -> str:
    count = f"{killed.tokens} tokens, {len(killed.text)} characters"
    if killed.text == killed.undisturbed:
        return f"{count}: the same as the story told without a kill. No token was lost, none came twice."
    agreed = agreement(killed.text, killed.undisturbed)
    if agreed >= killed.kept_characters:
        return (
            f"{count}. The story told without a kill is the same up to character {agreed}; the kill was at"
            f" {killed.kept_characters}. Then they differ, as they may where a GPU does not compute alike"
            " twice, so that the rest cannot be compared."
        )
    return (
        f"{count}. The story told without a kill differs before the kill, from character {agreed + 1} on:"
        " this model does not answer twice alike, so the texts cannot prove that nothing was lost."
    )
