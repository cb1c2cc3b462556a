"""Report the failed writes of the agent and the MLX server, for `vestal status`, `vestal doctor` and the
status page.
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from host_agent.journal import Journal, damaged_copies
from host_agent.services import AGENT
from vestal.best_effort.disks import find_obstacle
from vestal.best_effort.failures import FAILURES
from vestal.config import Home

Failures = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""The failed writes, by process and kind of write, each with `failed` (how many), `failing_since` and
`error`.
"""

ASK_DOCTOR = "`vestal doctor` says what to do."
NAMES = {
    "log": ("log line", "log lines"),
    "journal": ("event of the journal", "events of the journal"),
}


class DiskReport:
    """Collects the failed writes of the agent, the gateway and its engine, and records in the journal when
    writes begin to fail and when they succeed again.

    `home` is the Vestal home; the disk of its folder is checked for whether it can be written. `mlx_failures`
    returns the failed writes of the gateway and its engine, as the running gateway reported them last.
    `ask_mlx` gets a new report from the gateway; it is called while writes fail.
    """

    def __init__(
        self,
        home: Home,
        mlx_failures: Callable[[], Failures],
        ask_mlx: Callable[[], Awaitable[object]],
        journal: Journal,
    ) -> None:
        self._home, self._mlx_failures, self._ask_mlx, self._journal = home, mlx_failures, ask_mlx, journal
        self._is_failing = False

    def as_json(self) -> dict[str, Any]:
        """Return three fields. `message` says what cannot be written now, "" if all can. `write_failures` is
        {process: {kind of data, such as `log`: facts}}; the facts are `failed` (how many writes have failed
        since the process started), `failing_since` and `error`. `journal` is a sentence about a damaged
        journal that was renamed, "" if there is none.
        """
        failures = self._failures()
        return {
            "message": message(failures, str(self._home.root)),
            "write_failures": failures,
            "journal": journal_note([copy.name for copy in damaged_copies(self._home.journal_db)]),
        }

    async def record_change(self) -> None:
        """Check for failed writes. Record an event if they have begun or ended since the last call."""
        if error := find_obstacle(self._home.root):
            FAILURES.failed("disk", error, count=0)
        else:
            FAILURES.succeeded("disk")
        if self._is_failing:  # the gateway may write again, or have lost more
            await self._ask_mlx()
        failures = self._failures()
        is_failing = failing_since(failures) is not None
        if is_failing is self._is_failing:
            return
        self._is_failing = is_failing
        if is_failing:
            cause = message(failures, str(self._home.root))
            self._journal.record(AGENT, "disk_not_writable", cause)
        else:
            cause = f"lost since the start: {lost(failures) or 'nothing'}"
            self._journal.record(AGENT, "disk_writable_again", cause)

    def _failures(self) -> Failures:
        found = {AGENT: FAILURES.as_json(), **self._mlx_failures()}
        return {process: writes for process, writes in found.items() if writes}


def failing_since(failures: Failures) -> float | None:
    """Return when writes began to fail, in seconds since 1970; None if all succeed now."""
    times = [write["failing_since"] for writes in failures.values() for write in writes.values()]
    return min((since for since in times if since is not None), default=None)


def message(failures: Failures, folder: str) -> str:
    """Return a sentence on what cannot be written now, and the remedy; empty if all can be written."""
    since = failing_since(failures)
    if since is None:
        return ""
    failing = [write for writes in failures.values() for write in writes.values() if write["failing_since"]]
    errors = ", ".join(sorted({str(write["error"]) for write in failing}))
    clock = time.strftime("%H:%M:%S", time.localtime(since))
    so_far = f" Lost so far: {lost(failures)}." if lost(failures) else ""
    return (
        f"Files in {folder} cannot be written since {clock} ({errors}). All goes on without them, and is "
        f"written again as soon as it can be.{so_far} {ASK_DOCTOR}"
    )


def lost(failures: Failures) -> str:
    """Return how much is lost because it could not be written, such as `12 log lines, 3 events of the
    journal`.
    """
    counts: dict[str, int] = {}
    for writes in failures.values():
        for what, write in writes.items():
            if what in NAMES and write["failed"]:
                counts[what] = counts.get(what, 0) + write["failed"]
    return ", ".join(f"{count} {NAMES[what][count != 1]}" for what, count in sorted(counts.items()))


def journal_note(copies: list[str]) -> str:
    """Return a sentence about the damaged journals that were renamed; "" if there is none."""
    if not copies:
        return ""
    return f"It was damaged and replaced by an empty one. You may delete the damaged file, {copies[-1]}."
