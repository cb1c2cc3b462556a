"""Define the faults of engine, gateway and agent: killed, aborted, suspended, out of memory."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.faults.fault import LOOK_S, Fault, Made, event_of, signaled, until_dead
from benchmarks.faults.outcomes import AGENT
from benchmarks.faults.stack import FaultStack, until

MEMORY_GROUPS = (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup"))
"""The memory control groups of Linux, version 1 and version 2."""
KILLED_WITHIN_S = 20.0
REMOVED_WITHIN_S = 2.0
WATCHDOG_WITHIN_S = 10.0


def out_of_memory(stack: FaultStack) -> Made:
    """Use a control group to forbid the engine any more memory, so that the kernel kills it at its next
    allocation. Return the time of that kill.

    Without control groups (macOS, no root), or if the kernel does not kill the engine in time, it gets
    SIGKILL.
    """
    pid = stack.living_pid("mlx_engine")
    with _memory_group(pid) as limited:
        if not limited or not until_dead(pid, KILLED_WITHIN_S):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            until_dead(pid, KILLED_WITHIN_S)
        return Made(time.time() - LOOK_S)


@contextlib.contextmanager
def _memory_group(pid: int) -> Iterator[bool]:
    """Move a process into a new control group with a memory limit of 64 KiB, so that the kernel kills the
    process at its next allocation. Yield True, or False if this is not possible, as on macOS or without root.

    At the end of the `with` block the group is removed, which is possible only after the process in it has
    died.
    """
    root = next((group for group in MEMORY_GROUPS if (group / "cgroup.procs").exists()), None)
    group = (root or MEMORY_GROUPS[0]) / f"vestal-fault-{pid}"
    try:
        group.mkdir()
        limit = group / ("memory.max" if (group / "memory.max").exists() else "memory.limit_in_bytes")
        limit.write_text("65536")
        (group / "cgroup.procs").write_text(str(pid))
        limited = True
    except OSError:
        limited = False
    try:
        yield limited
    finally:
        until(lambda: _removed(group), REMOVED_WITHIN_S)


def _removed(group: Path) -> bool:
    """Remove a control group, which is possible after its last process was reaped. Return whether the group
    is gone.
    """
    with contextlib.suppress(OSError):
        group.rmdir()
    return not group.exists()


def kill_agent(stack: FaultStack) -> Made:
    """Kill the agent with SIGKILL. Return when, and when the watchdog wrote to its log, which shows that the
    fault was noticed.
    """
    log = stack.home / "logs" / "watchdog.log"
    pid, size = stack.living_pid("agent"), _size(log)
    at = time.time()
    os.kill(pid, signal.SIGKILL)
    while time.time() < at + WATCHDOG_WITHIN_S:
        if _size(log) > size:
            return Made(at, noticed_at=time.time())
        time.sleep(LOOK_S)
    return Made(at)


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


_HUNG = ("health_failed", "health_overdue", "child_restarting", "child_killed", "child_exited")
_ENGINE_ENDED, _GATEWAY_ENDED = event_of("mlx_engine", "child_exited"), event_of("mlx_server", "child_exited")
_ENGINE, _GATEWAY = ("mlx_engine",), ("mlx_server", "mlx_engine")

FAULTS = (
    Fault("engine_kill", signaled("mlx_engine", signal.SIGKILL), _ENGINE_ENDED, replaced=_ENGINE),
    Fault("engine_abrt", signaled("mlx_engine", signal.SIGABRT), _ENGINE_ENDED, replaced=_ENGINE),
    Fault(
        "engine_hang",
        signaled("mlx_engine", signal.SIGSTOP),
        event_of("mlx_engine", *_HUNG),
        replaced=_ENGINE,
    ),
    Fault("engine_oom", out_of_memory, _ENGINE_ENDED, replaced=_ENGINE),
    Fault("gateway_kill", signaled("mlx_server", signal.SIGKILL), _GATEWAY_ENDED, replaced=_GATEWAY),
    Fault(
        "gateway_hang",
        signaled("mlx_server", signal.SIGSTOP),
        event_of("mlx_server", *_HUNG),
        replaced=_GATEWAY,
    ),
    Fault("agent_kill", kill_agent, event_of("agent", "agent_started"), AGENT, replaced=("agent",)),
)
