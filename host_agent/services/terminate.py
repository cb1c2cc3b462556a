"""Terminate a process: SIGTERM, then SIGKILL. A later process with the same PID is spared."""

import asyncio
import contextlib
import os
import signal
import time

from host_agent.errors import NotPossible
from vestal.platform.processes import process_lookup
from vestal.supervision import ProcessIdentity
from vestal.supervision.processes.identity import identify

POLL_INTERVAL_S = 0.05


async def terminate_pid(pid: int, grace_s: float) -> None:
    """Send SIGTERM to the process `pid`, and SIGKILL if it still runs after `grace_s` seconds. Do nothing if
    there is no such process. Raises NotPossible if the process survives SIGKILL, too.
    """
    identity = identify(pid)
    if identity is not None:
        await terminate_identity(identity, grace_s)


async def terminate_identity(identity: ProcessIdentity, grace_s: float) -> bool:
    """Terminate the process as `terminate_pid` does, and return True; return False if it had ended before."""
    if not identity.alive():
        return False
    _send(identity, signal.SIGTERM)
    if process_lookup.is_suspended(identity.pid):
        _send(identity, signal.SIGCONT)  # a suspended process does not handle SIGTERM
    if await _has_ended(identity, grace_s):
        return True
    _send(identity, signal.SIGKILL)
    if not await _has_ended(identity, grace_s):
        raise NotPossible(f"PID {identity.pid} does not end, not even on SIGKILL.")
    return True


def _send(identity: ProcessIdentity, number: signal.Signals) -> None:
    if identity.alive():
        with contextlib.suppress(ProcessLookupError):
            os.kill(identity.pid, number)


async def _has_ended(identity: ProcessIdentity, timeout_s: float) -> bool:
    """Return True as soon as the process has ended, or False if it still runs after `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    while identity.alive():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(POLL_INTERVAL_S)
    return True
