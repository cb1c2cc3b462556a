"""Simulate that the machine sleeps: suspend all processes, and set forward the clocks that continue during a
sleep.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.faults.fault import Fault, Group, Made
from benchmarks.faults.outcomes import Entry
from benchmarks.faults.stack import FaultStack

SLEEP_S = 8 * 3600
FROZEN_S = 0.3
CLOCK_SOURCE = r"""
// Adds the seconds in the file $VESTAL_FAULT_CLOCK to the clocks that go on while a machine sleeps.
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
static volatile int64_t *slept_s;
static int (*real)(clockid_t, struct timespec *);
static void open_clock(void) {
    real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    const char *path = getenv("VESTAL_FAULT_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *page = mmap(0, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
    if (page != MAP_FAILED) slept_s = (volatile int64_t *)page;
}
extern "C" int clock_gettime(clockid_t clock, struct timespec *now) {
    if (!real) open_clock();
    int failed = real(clock, now);
    if (!failed && slept_s && (clock == CLOCK_REALTIME || clock == CLOCK_BOOTTIME)) now->tv_sec += *slept_s;
    return failed;
}
"""


def compile_clock(folder: Path) -> Path:
    """Compile the library by which a process's clocks can be set forward, and return its path.

    Raises OSError if there is no compiler, and subprocess.CalledProcessError if it fails.
    """
    source, library = folder / "clock.cpp", folder / "clock.so"
    source.write_text(CLOCK_SOURCE)
    command = ["g++", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    return library


def sleep(stack: FaultStack) -> Made:
    """Suspend all processes of the stack, set forward the clocks that continue during a sleep, and continue
    the processes. Return the time at which they continue, because the fault begins with that wake.
    """
    sleepers = stack.processes()
    for process in sleepers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGSTOP)
    time.sleep(FROZEN_S)
    stack.set_clocks_forward(SLEEP_S)
    at = time.time()
    for process in sleepers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGCONT)
    return Made(at)


def _wake_is_named(entry: Entry) -> bool:
    return entry.event == "machine_woke"


SLEEP = Fault(
    "sleep",
    sleep,
    _wake_is_named,
    stable=("mlx_server",),
)


def _lacking(fault: Fault) -> str:
    try:
        with tempfile.TemporaryDirectory() as folder:
            compile_clock(Path(folder))
    except (OSError, subprocess.CalledProcessError):
        return "the clocks are set forward with g++ and LD_PRELOAD, on Linux"
    return ""


@contextlib.contextmanager
def _open_stack(first_port: int) -> Iterator[FaultStack]:
    with (
        tempfile.TemporaryDirectory() as folder,
        FaultStack(first_port=first_port, clock=compile_clock(Path(folder))) as stack,
    ):
        yield stack


GROUP = Group((SLEEP,), _open_stack, _lacking)
