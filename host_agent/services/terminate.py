"""Ends a process gracefully, and in the end for certain: this very process, never a later one of its PID."""

import asyncio
import contextlib
import os
import signal
import time

from host_agent.errors import NotPossible
from vestal.platform.processes import process_lookup
from vestal.supervision import ProcessIdentity
from vestal.supervision.processes.identity import identify

LOOK_AGAIN_S = 0.05


async def terminate(pid: int, grace_s: float) -> None:
    """SIGTERM, and SIGKILL after `grace_s`; NotPossible where it survives that too."""
    identity = identify(pid)
    if identity is not None:
        await terminate_identity(identity, grace_s)


async def terminate_identity(identity: ProcessIdentity, grace_s: float) -> bool:
    """As `terminate`; False where it had ended already."""
    if not identity.alive():
        return False
    _send(identity, signal.SIGTERM)
    if process_lookup.is_suspended(identity.pid):
        _send(identity, signal.SIGCONT)  # or it could never act on the SIGTERM
    if await _gone(identity, grace_s):
        return True
    _send(identity, signal.SIGKILL)
    if not await _gone(identity, grace_s):
        raise NotPossible(f"PID {identity.pid} does not end, not even on SIGKILL.")
    return True


def _send(identity: ProcessIdentity, number: signal.Signals) -> None:
    if identity.alive():
        with contextlib.suppress(ProcessLookupError):
            os.kill(identity.pid, number)


async def _gone(identity: ProcessIdentity, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while identity.alive():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(LOOK_AGAIN_S)
    return True
