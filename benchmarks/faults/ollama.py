"""Define the faults of Ollama. A program that behaves like Ollama stands in for it, so that no model is
needed.
"""

from __future__ import annotations

import signal

from benchmarks.faults.fault import Fault, event_of, signaled
from benchmarks.faults.outcomes import OLLAMA

_HUNG = (
    "health_failed",
    "health_overdue",
    "silence_judged",
    "child_restarting",
    "child_killed",
    "child_exited",
)

FAULTS = (
    Fault(
        "ollama_kill",
        signaled("ollama", signal.SIGKILL),
        event_of("ollama", "child_exited"),
        OLLAMA,
        replaced=("ollama",),
    ),
    Fault(
        "ollama_hang",
        signaled("ollama", signal.SIGSTOP),
        event_of("ollama", *_HUNG),
        OLLAMA,
        replaced=("ollama",),
        limit_s=300.0,
    ),
)
