"""Death of a child to its new process, no back-off due: kill -9 it 20 times and take the time (design §5).

    python benchmarks/supervision_restart.py [KILLS]

The child is `sleep`, so that what is timed is the supervisor and not the child's own start. The new process
is seen by its PID file, as an outsider sees it, and the supervisor runs in a process of its own.
"""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from supervision import ChildSpec, Intensity, RestartPolicy, Supervisor, read_pid_file

DEADLINE_S = 10.0
ROW = "{:<12} {:>9} {:>9} {:>9} {:>9}"


async def supervise(pid_file: Path) -> None:
    """What is measured: one child, restarted at once however often it dies."""
    policy = RestartPolicy(stable_after_s=0, intensity=Intensity(10_000, 300))
    supervisor = Supervisor([ChildSpec("child", ("sleep", "3600"), pid_file=pid_file, policy=policy)])
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await supervisor.start()
    await stopped.wait()
    await supervisor.stop()


def new_pid(pid_file: Path, old: int) -> int:
    """Waits for a PID other than `old`."""
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        found = read_pid_file(pid_file)
        if found is not None and found.pid != old:
            return found.pid
        time.sleep(0.0002)
    raise TimeoutError(f"no new process within {DEADLINE_S:g} s")


def resident_mb(pid: int) -> float:
    """Resident memory as `ps` tells it."""
    told = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=True)
    return int(told.stdout) / 1024


def measure(kills: int) -> tuple[list[float], float]:
    """Milliseconds from each kill to the next process, and the supervisor's megabytes."""
    with tempfile.TemporaryDirectory() as folder:
        pid_file = Path(folder) / "child.json"
        supervisor = subprocess.Popen([sys.executable, __file__, "--supervise", str(pid_file)])
        try:
            took = []
            pid = new_pid(pid_file, 0)
            for _ in range(kills):
                time.sleep(0.02)
                began = time.perf_counter()
                os.kill(pid, signal.SIGKILL)
                pid = new_pid(pid_file, pid)
                took.append((time.perf_counter() - began) * 1000)
            return took, resident_mb(supervisor.pid)
        finally:
            supervisor.terminate()
            supervisor.wait(DEADLINE_S)


def main() -> None:
    if sys.argv[1:2] == ["--supervise"]:
        asyncio.run(supervise(Path(sys.argv[2])))
        return
    took, memory_mb = measure(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
    print(ROW.format("supervisor", "p50 ms", "max ms", "kills", "RSS MB"))
    row = (f"{statistics.median(took):.1f}", f"{max(took):.1f}", len(took), f"{memory_mb:.0f}")
    print(ROW.format("vestal", *row))


if __name__ == "__main__":
    main()
