"""Supervision as in Erlang/OTP, for asyncio: standard library only.

supervisor = Supervisor([ChildSpec("web", ("python", "-m", "http.server"))])
await supervisor.start()
await supervisor.wait_for("web", {State.READY}, timeout_s=10)
print(supervisor.status()["web"].as_json())
await supervisor.stop()
"""

from supervision.backoff import Backoff
from supervision.breaker import Breaker, BreakerPolicy, BreakerState
from supervision.clock import Clock, FakeClock, SystemClock
from supervision.errors import (
    LaunchError,
    SpecError,
    StoppedByHand,
    StopTimeout,
    SupervisionError,
    UnknownChild,
    WaitTimeout,
)
from supervision.events import Event, EventStream
from supervision.handle_around import HandleAround
from supervision.identity import Identity, read_pid_file, start_time, write_pid_file
from supervision.intensity import Intensity
from supervision.policy import RestartPolicy
from supervision.probe import ProbePolicy, ProbeResult
from supervision.process import GroupProcess, spawn
from supervision.sleep import SleepWatch, watch_sleep
from supervision.spec import ChildSpec, Launcher, Probe, ProcessHandle
from supervision.states import DOWN, UP, ChildStatus, ExitStatus, Restart, State, Strategy
from supervision.store import JsonStateStore, MemoryStateStore, StateStore
from supervision.supervisor import Supervisor

__all__ = [
    "DOWN",
    "UP",
    "Backoff",
    "Breaker",
    "BreakerPolicy",
    "BreakerState",
    "ChildSpec",
    "ChildStatus",
    "Clock",
    "Event",
    "EventStream",
    "ExitStatus",
    "FakeClock",
    "GroupProcess",
    "HandleAround",
    "Identity",
    "Intensity",
    "JsonStateStore",
    "LaunchError",
    "Launcher",
    "MemoryStateStore",
    "Probe",
    "ProbePolicy",
    "ProbeResult",
    "ProcessHandle",
    "Restart",
    "RestartPolicy",
    "SleepWatch",
    "SpecError",
    "State",
    "StateStore",
    "StopTimeout",
    "StoppedByHand",
    "Strategy",
    "SupervisionError",
    "Supervisor",
    "SystemClock",
    "UnknownChild",
    "WaitTimeout",
    "read_pid_file",
    "spawn",
    "start_time",
    "watch_sleep",
    "write_pid_file",
]
