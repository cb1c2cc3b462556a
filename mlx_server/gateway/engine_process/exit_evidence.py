"""Decide from an engine's exit whether the engine's requests may have caused it. Pure."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from mlx_server.gateway.requests.table.crash_policy import EngineDeath

SENT_BY_ANYBODY = frozenset({int(signal.SIGKILL), int(signal.SIGTERM)})
"""Signals that come from another process. A process that fails ends by other signals, such as SIGABRT and
SIGSEGV."""

SHELL_SIGNAL_BASE = 128
"""A shell, or a launcher that imitates one, exits with this number plus the number of the signal that ended
its program."""


@dataclass(frozen=True)
class ExitEvidence:
    """The known facts about one exit of an engine.

    `planned`           somebody asked the engine to exit
    `code`, `signal`    its exit status; both None if that is unknown
    `fault`             the fault for which the gateway ended the engine: it hung, or sent bytes that are
                        not an event; empty if there was none
    `killed_for_memory` the kernel killed a process for lack of memory at that time
    """

    planned: bool = False
    code: int | None = None
    signal: int | None = None
    fault: str = ""
    killed_for_memory: bool = False

    def death(self) -> EngineDeath:
        """Return the kind of death, from which the crash policy decides what happens to the engine's
        requests.

        A SIGKILL for lack of memory counts as the engine's own fault, because one of its requests may need
        more memory than the machine has.
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
