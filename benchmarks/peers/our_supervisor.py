"""Run Vestal's supervisor with one child and the default policy, in the foreground until SIGTERM."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

from vestal.supervision import ChildSpec, RestartPolicy, Supervisor

STABLE_AFTER_S = 1.0
"""A child that ran for this many seconds is restarted at once, as with supervisord's `startsecs`."""


async def supervise(child: str, folder: str, stop_s: float) -> None:
    policy = RestartPolicy(stable_after_s=STABLE_AFTER_S, stop_timeout_s=stop_s)
    spec = ChildSpec("child", (child,), pid_file=Path(folder) / "child.json", policy=policy)
    supervisor = Supervisor([spec])
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await supervisor.start()
    await stopped.wait()
    await supervisor.stop()


if __name__ == "__main__":
    asyncio.run(supervise(*json.loads(sys.argv[1])))
