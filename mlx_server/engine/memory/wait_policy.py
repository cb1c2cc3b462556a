"""Decide how long a load or a request waits for memory before it is refused. Pure.

Memory that the engine's own requests hold is freed when they end, so waiting for it is worthwhile. Memory
that other programs hold may never be freed, so the request is refused soon.
"""

from __future__ import annotations

from dataclasses import dataclass

OTHERS_S = 10.0
"""The longest wait for memory that other programs hold, in seconds."""

RETRY_S = 0.1
"""How often memory is read again while something waits, in seconds. No event announces freed memory."""


@dataclass(frozen=True)
class WaitPolicy:
    """Decides how long to wait for memory. No wait is longer than `max_wait_s`."""

    max_wait_s: float

    def is_over(self, since_s: float, patient: bool, now: float) -> bool:
        """Return whether a wait since `since_s` is over. Times are in seconds on the caller's clock.

        `patient` is True if the memory will be freed, by the engine's own requests or because it is held by a
        dead engine. The wait may then last `max_wait_s`. Any other wait lasts OTHERS_S at most.
        """
        limit_s = self.max_wait_s if patient else min(OTHERS_S, self.max_wait_s)
        return now - since_s >= limit_s
