"""Judge from an engine's exit whether its requests may have caused it. Pure."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from mlx_server.gateway.requests.table.crash_policy import EngineDeath

SENT_BY_ANYBODY = frozenset({int(signal.SIGKILL), int(signal.SIGTERM)})
"""Signals that a process does not send itself when it fails, as SIGABRT and SIGSEGV are."""

SHELL_SIGNAL_BASE = 128
"""A shell, and a launcher that imitates one, exits with this plus the signal that ended its program."""


@dataclass(frozen=True)
class ExitEvidence:
    """What is known about one exit of an engine.

    `planned`           somebody asked the engine to exit
    `code`, `signal`    its exit status; both None if that is unknown
    `fault`             what the gateway found wrong before it ended the engine: a hang, or bytes that are
                        not an event; empty if nothing
    `killed_for_memory` the kernel killed a process for memory at that time
    """

    planned: bool = False
    code: int | None = None
    signal: int | None = None
    fault: str = ""
    killed_for_memory: bool = False

    def death(self) -> EngineDeath:
        """Return the kind of death, by which the crash policy judges the engine's requests.

        A SIGKILL for memory counts as the engine's own fault: one of its requests may need more than there
        is.
        """
        if self.fault:
            return EngineDeath.OWN_FAULT
        if self.planned:
            return EngineDeath.PLANNED
        number = self._signal()
        if number == signal.SIGKILL and self.killed_for_memory:
            return EngineDeath.OWN_FAULT
        if number in SENT_BY_ANYBODY or (number is None and not self.code):
            return EngineDeath.UNKNOWN_KILL
        return EngineDeath.OWN_FAULT

    def _signal(self) -> int | None:
        if self.signal is None and self.code is not None and self.code > SHELL_SIGNAL_BASE:
            return self.code - SHELL_SIGNAL_BASE
        return self.signal
