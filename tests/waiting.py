"""Waiting for a condition with a deadline, at little cost to the processes that are waited for.

Whoever asks a server for its state a hundred times a second takes a third of a core from what the server has
to do. A look that comes late by a twentieth of the wait so far delays no test.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.01, 0.1


def looks(within_s: float, longest_pause_s: float = LONGEST_PAUSE_S) -> Iterator[None]:
    """Yield once for each look at a condition until the deadline; sleep between the looks, ever longer."""
    began = time.monotonic()
    while (waited_s := time.monotonic() - began) < within_s:
        yield
        time.sleep(min(longest_pause_s, max(FIRST_PAUSE_S, waited_s / 20)))
