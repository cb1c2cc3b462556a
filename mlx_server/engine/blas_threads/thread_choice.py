"""Decide how many threads the next slice of a prompt, or the next step of answers, gets. Pure.

OpenBLAS's threads wait for each other after every product, so one that finds its core taken slows all of them
down. Measured on two cores: 295 tokens of a prompt a second with two threads and 215 with one; with another
busy process, 70 with two and 175 with one. A step of eight answers takes 90 ms with two threads and 135 with
one; with another busy process 320 and 135. So more threads are used only while cores are idle, and not again
for a while after they were found to be slower.
"""

from __future__ import annotations

_FREE_SHARE = 0.8
"""How much of the further cores must be idle."""
_FEWEST_TOKENS = 64
"""Slices with fewer tokens say little about speed."""
_FEWEST_STEP_TOKENS = 24
"""Steps of answers are counted together until they have that many. It is as little as tells the speeds apart:
until then, new answers run with few threads."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 30.0, 600.0
_WEIGHT = 0.3
"""What the newest slice counts in the average speed."""


class ThreadChoice:
    """Chooses between `few` and `most` threads. Times are in seconds on the caller's clock.

    With `few_first`, the speed with `few` threads must be known before more are tried. Work of fewer than
    `fewest_tokens` is not counted.
    """

    def __init__(
        self, few: int, most: int, *, few_first: bool = False, fewest_tokens: int = _FEWEST_TOKENS
    ) -> None:
        self.few, self.most = few, most
        self._fewest_tokens = fewest_tokens
        self._few_first = few_first
        self._tokens_per_s: dict[int, float] = {}
        self._pause_s = _FIRST_PAUSE_S
        self._paused_until_s = float("-inf")

    def choose(self, others_cores: float | None, now: float) -> int:
        """Return the number of threads to use next.

        `others_cores` is how many cores other processes keep busy; None if that is not known.
        """
        if others_cores is None or now < self._paused_until_s:
            return self.few
        if self._few_first and self.few not in self._tokens_per_s:
            return self.few
        free = self.most - self.few - others_cores
        return self.most if free >= _FREE_SHARE * (self.most - self.few) else self.few

    def record(self, threads: int, tokens: int, seconds: float, now: float) -> None:
        """Record the tokens that were computed with this number of threads, and the seconds it took."""
        if tokens < self._fewest_tokens or seconds <= 0:
            return
        speed = tokens / seconds
        known = self._tokens_per_s.get(threads)
        self._tokens_per_s[threads] = speed if known is None else known + _WEIGHT * (speed - known)
        usual = self._tokens_per_s.get(self.few)
        if threads == self.few or usual is None:
            return
        if speed < usual:
            self._paused_until_s = now + self._pause_s
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        else:
            self._pause_s = _FIRST_PAUSE_S


class StepThreadChoice:
    """Chooses the threads for steps that compute one token, or a few, of each of several answers.

    More threads pay from some rows on, and the more the more rows there are. So each doubling of the rows has
    a choice of its own.
    """

    FEWEST_ROWS = 4
    """With fewer rows, reading the weights takes all the time, and more threads gain nothing."""

    def __init__(self, few: int, most: int) -> None:
        self.few, self.most = few, most
        self._choices: dict[int, ThreadChoice] = {}
        self._counted: dict[int, tuple[int, int, float]] = {}  # by size: threads, rows, and seconds so far

    def choose(self, rows: int, others_cores: float | None, now: float) -> int:
        """Return the number of threads for a step that computes `rows` tokens."""
        if rows < self.FEWEST_ROWS:
            return self.few
        return self._choice(rows).choose(others_cores, now)

    def record(self, rows: int, threads: int, seconds: float, now: float) -> None:
        """Record a step."""
        if rows < self.FEWEST_ROWS:
            return
        size = rows.bit_length()
        before = self._counted.get(size)
        if before is None or before[0] != threads:
            before = (threads, 0, 0.0)
        counted = (threads, before[1] + rows, before[2] + seconds)
        if counted[1] >= _FEWEST_STEP_TOKENS:
            self._choice(rows).record(threads, counted[1], counted[2], now)
            counted = (threads, 0, 0.0)
        self._counted[size] = counted

    def _choice(self, rows: int) -> ThreadChoice:
        size = rows.bit_length()
        choice = ThreadChoice(self.few, self.most, few_first=True, fewest_tokens=_FEWEST_STEP_TOKENS)
        return self._choices.setdefault(size, choice)
