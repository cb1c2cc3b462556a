"""Judge an answer whose engine was killed: measure the pause, and compare the text with the answer of an
undisturbed run. Pure.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

SENTENCE_ENDS = (".", "!", "?", ":", '"', "”")
LEAST_TOKENS, MOST_TOKENS = 24, 60
"""The engine is killed within a sentence after LEAST_TOKENS, and at MOST_TOKENS at the latest."""


@dataclass(frozen=True)
class Killed:
    """The result of the demonstration: `text` is the answer whose engine was killed, `tokens` its length, and
    `undisturbed` the answer of a run without a kill.

    `kept_characters` and `kept_tokens` say how much of `text` had arrived before the kill. `old_pid` is the
    killed engine, and `new_pid` the one that replaced it (None if no start was reported). `pause_s` is the
    longest pause after the kill.
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
    """Return whether to kill the engine after the first `tokens` tokens of the answer, whose text is `text`.

    Return True if LEAST_TOKENS have arrived and the last sentence is incomplete, or if MOST_TOKENS have
    arrived.
    """
    if tokens >= MOST_TOKENS:
        return True
    words = text.rstrip()
    return tokens >= LEAST_TOKENS and bool(words) and not words.endswith(SENTENCE_ENDS)


def pause_after(killed_at: float, arrivals: Sequence[float]) -> float:
    """Return the longest pause, in seconds, after the engine was killed at `killed_at`: from the kill to the
    next piece of the answer, or between two later pieces. Return 0 if no piece arrived after the kill.

    `arrivals` are the times at which the answer's pieces arrived, in order; those before the kill are
    ignored. All times are monotonic seconds. The longest pause need not be the first one, because pieces that
    were sent before the kill may arrive after it.
    """
    times = [killed_at, *(at for at in arrivals if at >= killed_at)]
    return max((later - earlier for earlier, later in zip(times, times[1:], strict=False)), default=0.0)


def survived(killed: Killed) -> bool:
    """Return whether the answer continued after the kill without losing or repeating text that had arrived.

    A difference after the kill is allowed, because a token that is computed again may be rounded differently
    on a GPU or on another machine.
    """
    agreed = agreement(killed.text, killed.undisturbed)
    return len(killed.text) > killed.kept_characters and agreed >= killed.kept_characters


def agreement(one: str, other: str) -> int:
    """Return the length, in characters, of the beginning that two texts have in common."""
    shorter = min(len(one), len(other))
    return next((at for at in range(shorter) if one[at] != other[at]), shorter)


def report(killed: Killed, width: int) -> list[str]:
    """Return sentences that describe the demonstration's result, wrapped for a terminal of `width`
    columns.
    """
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
