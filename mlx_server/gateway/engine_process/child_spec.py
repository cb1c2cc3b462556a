"""How the engine is run as a child process: command, environment, files, and restart rules."""

from __future__ import annotations

from collections.abc import Callable, Container
from pathlib import Path

from mlx_server.engine_environment import engine_environment
from mlx_server.gateway.engine_process.launcher import EngineLauncher
from mlx_server.gateway.engine_process.memory_gate import MemoryGate
from mlx_server.protocol.digest import DIGEST_VARIABLE, EXIT_OTHER_PROTOCOL, PROTOCOL_DIGEST
from vestal.config import Config
from vestal.platform import model_servers
from vestal.platform.processes import vestal_processes
from vestal.supervision import (
    PID_FILE_VARIABLE,
    PRODUCTIVE_WEIGHT,
    Backoff,
    BreakerPolicy,
    ChildSpec,
    Clock,
    Intensity,
    Probe,
    ProbePolicy,
    RestartPolicy,
)

NAME = "mlx_engine"
START_TIMEOUT_S = 60.0
PROBE_INTERVAL_S, PROBE_TIMEOUT_S = 1.0, 5.0
FATAL_EXIT_CODES = frozenset({78, EXIT_OTHER_PROTOCOL})  # no other start would end otherwise
STABLE_AFTER_S = 1.0
"""An engine that was ready for at least this long before it died is restarted without delay. The time is
short because killing the engine is a normal remedy."""


def engine_child_spec(
    config: Config,
    command: tuple[str, ...],
    clock: Clock,
    launcher: EngineLauncher,
    *,
    ready: Probe,
    health: Probe,
    productive: Callable[[int], bool],
) -> ChildSpec:
    """Return the spec of the engine that `command` runs; `ready` and `health` are the engine's probes.
    `productive` is a function that returns whether the engine with this PID has given clients a token or an
    answer.
    """
    home = config.home
    env = engine_environment(home.cache)
    return ChildSpec(
        name=NAME,
        command=command,
        env=env | {"VESTAL_HOME": str(home.root), DIGEST_VARIABLE: PROTOCOL_DIGEST},
        log_path=home.logs / "engine.log",
        pid_file=home.run / f"{NAME}.json",
        find=_find,
        ready=ready,
        health=health,
        productive=productive,
        policy=_restart_policy(config),
        fatal_exit_codes=FATAL_EXIT_CODES,
        adopt=False,  # an engine cannot be used after its gateway has died, because their link is gone
        launcher=launcher,
        before_launch=MemoryGate(model_servers.current_headroom, clock),
    )


def _find(pid_file: Path, excluded: Container[int]) -> int | None:
    """Return the PID of an engine that an earlier gateway started but `pid_file` does not name; None if there
    is none. `excluded` are PIDs to ignore.
    """
    return vestal_processes.group_leader(PID_FILE_VARIABLE, str(pid_file), excluded)


def _restart_policy(config: Config) -> RestartPolicy:
    supervision = config.supervision
    return RestartPolicy(
        backoff=Backoff(supervision.backoff_base_s, supervision.backoff_max_s),
        intensity=Intensity(supervision.max_restarts, supervision.window_s),
        breaker=BreakerPolicy(supervision.breaker_failures, supervision.breaker_open_s),
        start_timeout_s=START_TIMEOUT_S,
        stop_timeout_s=supervision.stop_s,
        stable_after_s=STABLE_AFTER_S,
        productive_weight=PRODUCTIVE_WEIGHT,
        settle_after_kill_s=supervision.settle_after_kill_s,
        # One failure is enough: `liveness` has its own timeouts.
        probe=ProbePolicy(interval_s=PROBE_INTERVAL_S, timeout_s=PROBE_TIMEOUT_S, failures=1),
    )
