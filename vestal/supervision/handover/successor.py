"""Report to the supervisor from a program that is started to take over from a running process.

succession = Succession.from_environment()
…                                    # read the settings, import what is needed
succession.report_ready()            # the supervisor asks the predecessor to hand over
…                                    # wait for what the predecessor releases, begin to serve
succession.report_serving()
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import MutableMapping

SUCCEEDS_VARIABLE = "VESTAL_SUCCEEDS"
"""The environment variable of a successor that holds the PID of its predecessor."""

READY_FD_VARIABLE = "VESTAL_READY_FD"
"""The environment variable with the descriptor to which a successor writes a line when it is ready, and
another when it serves.
"""

READY, SERVING = "ready", "serving"


class Succession:
    """What this process needs to take over from a predecessor: its PID, and a pipe to report progress by.

    `predecessor` is the predecessor's PID, or None if this process replaces no other. Reports that nobody
    reads are dropped, because the supervisor may have died.
    """

    def __init__(self, predecessor: int | None = None, descriptor: int | None = None) -> None:
        self.predecessor = predecessor
        self._descriptor = descriptor

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str] = os.environ) -> Succession:
        """Return the succession that the supervisor's variables describe. It may have no predecessor.

        The variables are removed, so that no child process inherits them.
        """
        predecessor = _number(environment.pop(SUCCEEDS_VARIABLE, ""))
        descriptor = _number(environment.pop(READY_FD_VARIABLE, ""))
        if descriptor is not None:
            try:
                os.set_inheritable(descriptor, False)
            except OSError:
                descriptor = None
        return cls(predecessor, descriptor)

    def report_ready(self) -> None:
        """Report that this process can take over: it has read and imported all that it needs."""
        self._write(READY)

    def report_serving(self) -> None:
        """Report to the supervisor that this process serves. Close the pipe for reports, because no other one
        follows.
        """
        self._write(SERVING)
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _write(self, word: str) -> None:
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.write(self._descriptor, f"{word}\n".encode())


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None
