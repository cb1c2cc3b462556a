"""Supervision of processes as in Erlang/OTP, for asyncio. It needs the standard library only; README.md
explains it.

supervisor = Supervisor([ChildSpec("web", ("python", "-m", "http.server"))])
await supervisor.start()
await supervisor.wait_for("web", {State.READY}, timeout_s=10)
print(supervisor.status()["web"].as_json())
await supervisor.stop()
"""

from vestal.supervision.child_spec import ChildSpec, Launcher, Probe, ProcessHandle, ReadActivity
from vestal.supervision.clock import Clock, FakeClock, SystemClock, next_tick
from vestal.supervision.errors import (
    HandoverRefused,
    LaunchError,
    SpecError,
    StoppedByHand,
    StopTimeout,
    SupervisionError,
    SupervisorStopped,
    UnknownChild,
    WaitTimeout,
)
from vestal.supervision.event_stream import Event, EventStream
from vestal.supervision.health.health_check import HealthCheck
from vestal.supervision.health.silence import ProcessActivity, ProcessVerdict, UnansweredQuestions
from vestal.supervision.lifecycle.breaker import Breaker, BreakerPolicy, BreakerState
from vestal.supervision.lifecycle.probe import ProbePolicy, ProbeResult
from vestal.supervision.lifecycle.restart_intensity import Intensity
from vestal.supervision.lifecycle.restart_policy import (
    PRODUCTIVE_WEIGHT,
    Backoff,
    HandoverPolicy,
    RestartPolicy,
)
from vestal.supervision.lifecycle.states import (
    DOWN,
    UP,
    ChildStatus,
    ExitStatus,
    RestartType,
    State,
    Strategy,
)
from vestal.supervision.processes.handle_wrapper import HandleWrapper
from vestal.supervision.processes.identity import ProcessIdentity
from vestal.supervision.processes.pid_file import read_pid_file, write_pid_file
from vestal.supervision.processes.process_group import PID_FILE_VARIABLE, ProcessGroup, spawn
from vestal.supervision.processes.start_time import has_ended, start_time
from vestal.supervision.sleep_detector import SleepDetector, watch_sleep
from vestal.supervision.state_store import JsonStateStore, MemoryStateStore, StateStore
from vestal.supervision.supervisor import Supervisor

__all__ = [
    "DOWN",
    "PID_FILE_VARIABLE",
    "PRODUCTIVE_WEIGHT",
    "UP",
    "ProcessActivity",
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
    "ProcessGroup",
    "HandleWrapper",
    "HandoverPolicy",
    "HandoverRefused",
    "HealthCheck",
    "ProcessIdentity",
    "Intensity",
    "JsonStateStore",
    "LaunchError",
    "Launcher",
    "MemoryStateStore",
    "Probe",
    "ProbePolicy",
    "ProbeResult",
    "ProcessHandle",
    "ReadActivity",
    "RestartType",
    "RestartPolicy",
    "UnansweredQuestions",
    "SleepDetector",
    "SpecError",
    "State",
    "StateStore",
    "StopTimeout",
    "StoppedByHand",
    "Strategy",
    "SupervisionError",
    "Supervisor",
    "SupervisorStopped",
    "SystemClock",
    "UnknownChild",
    "ProcessVerdict",
    "WaitTimeout",
    "next_tick",
    "read_pid_file",
    "spawn",
    "has_ended",
    "start_time",
    "watch_sleep",
    "write_pid_file",
]
