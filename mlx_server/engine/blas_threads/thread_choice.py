"""Decide how many threads compute the matrix products of the next slice of a prompt, or of the next step of
answers. Pure.

OpenBLAS's threads wait for each other after every product, so a single thread whose core is busy slows all of
them down. Measured on two cores: 295 tokens of a prompt per second with two threads, 215 with one; while
another process is busy, 70 with two, 175 with one. A step of eight answers takes 90 ms with two threads, 135
with one; while another process is busy, 320 with two, 135 with one. So more threads are used only while cores
are idle. If they prove no faster, they are not tried again for a while.
"""

from __future__ import annotations

_FREE_SHARE = 0.8
"""The share of the additional cores that must be idle before they are used."""
_FEWEST_TOKENS = 64
"""Slices with fewer tokens are not measured, because they say little about speed."""
_FEWEST_STEP_TOKENS, _FEWEST_STEPS_S = 24, 0.3
"""Steps of answers are measured together until they have computed this many tokens, or have taken this many
seconds. That is as few as can tell the speeds apart, because new answers run with few threads until then."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 30.0, 600.0
_LEAST_GAIN = 1.05
"""How many times as fast more threads must be: each of them takes a core from other processes."""
_COMPARABLE_S = 10.0
"""For how long the measured speed with few threads is compared with newer ones. Steps become slower as
answers become longer, so an older speed would say little."""
_WEIGHT = 0.3
"""The weight of the newest measurement in the moving average of the speed."""


class ThreadChoice:
    """Chooses whether `few` or `most` threads compute the matrix products of the next slice of a prompt, or
    of the next step, which computes the next tokens of the running answers. Decides by the measured speeds
    and by how many cores are idle.

    With `few_first`, `most` is not tried before the speed with `few` threads has been measured. Slices and
    steps of fewer than `fewest_tokens` tokens are not measured. Times are in seconds on the caller's clock.
    """

    def __init__(
        self, few: int, most: int, *, few_first: bool = False, fewest_tokens: int = _FEWEST_TOKENS
    ) -> None:
        self.few, self.most = few, most
        self._fewest_tokens = fewest_tokens
        self._measures_few = few_first
        self._tokens_per_s: float | None = None  # with few threads
        self._measured_at_s = float("-inf")
        self._pause_s = _FIRST_PAUSE_S
        self._paused_until_s = float("-inf")

    def choose(self, others_cores: float | None, now: float) -> int:
        """Return the number of threads for the next slice of a prompt or step of answers: `most` if enough
        cores are idle, else `few`. Return `few` also while the speed with `few` threads has yet to be
        measured, and for some time after `most` threads have proved no faster (see `record`).

        `others_cores` is how many cores other processes keep busy; None if that is unknown, which makes the
        choice `few`. `now` is in seconds on the caller's clock.
        """
        if others_cores is None or now < self._paused_until_s or self._measures_few:
            return self.few
        free = self.most - self.few - others_cores
        return self.most if free >= _FREE_SHARE * (self.most - self.few) else self.few

    def record(self, threads: int, tokens: int, seconds: float, now: float) -> None:
        """Record that computing `tokens` tokens with `threads` threads, which is `few` or `most`, took
        `seconds`.

        If `most` threads were hardly faster than `few`, `choose` returns `few` for a pause of 30 s. Each
        further pause is twice as long as the one before, up to 600 s. Once `most` threads have been clearly
        faster, the next pause is one of 30 s again. If the speed with `few` threads was last measured more
        than 10 s ago, it is too old for this comparison. `choose` then returns `few` until that speed has
        been measured again.
        """
        if tokens < self._fewest_tokens or seconds <= 0:
            return
        speed, usual = tokens / seconds, self._tokens_per_s
        if threads == self.few:
            self._tokens_per_s = speed if usual is None else usual + _WEIGHT * (speed - usual)
            self._measured_at_s, self._measures_few = now, False
        elif usual is None or speed >= _LEAST_GAIN * usual:
            self._pause_s = _FIRST_PAUSE_S
        elif now - self._measured_at_s > _COMPARABLE_S:
            self._tokens_per_s, self._measures_few = None, True
        elif now >= self._paused_until_s:
            self._paused_until_s = now + self._pause_s
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)


class StepThreadChoice:
    """Chooses whether `few` or `most` threads compute a step, which computes one token, or a few, of each of
    several answers.

    The gain from additional threads depends on how many rows (tokens) a step computes. So speeds are
    measured, and a choice is made, separately for steps of 1, of 2 to 3, of 4 to 7, of 8 to 15 rows, and so
    on.
    """

    def __init__(self, few: int, most: int) -> None:
        self.few, self.most = few, most
        self._choices: dict[int, ThreadChoice] = {}
        self._counted: dict[int, tuple[int, int, float]] = {}  # by size: threads, rows, and seconds so far

    def choose(self, rows: int, others_cores: float | None, now: float) -> int:
        """Return the number of threads for a step that computes `rows` tokens.

        `others_cores` is how many cores other processes keep busy; None if that is unknown. `now` is in
        seconds on the caller's clock.
        """
        return self._choice(rows).choose(others_cores, now)

    def record(self, rows: int, threads: int, seconds: float, now: float) -> None:
        """Record that a step that computed `rows` tokens with `threads` threads took `seconds`, and ended at
        `now` (seconds on the caller's clock).
        """
        size = rows.bit_length()
        before = self._counted.get(size)
        if before is None or before[0] != threads:
            before = (threads, 0, 0.0)
        counted = (threads, before[1] + rows, before[2] + seconds)
        if counted[1] >= _FEWEST_STEP_TOKENS or counted[2] >= _FEWEST_STEPS_S:
            self._choice(rows).record(threads, counted[1], counted[2], now)
            counted = (threads, 0, 0.0)
        self._counted[size] = counted

    def _choice(self, rows: int) -> ThreadChoice:
        size = rows.bit_length()
        choice = ThreadChoice(self.few, self.most, few_first=True, fewest_tokens=1)
        return self._choices.setdefault(size, choice)
