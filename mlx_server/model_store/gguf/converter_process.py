"""Run the GGUF converter in a child process, because the converter imports mlx and its callers must not."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

from mlx_server.engine_environment import engine_environment
from mlx_server.model_store import disk
from mlx_server.model_store.errors import ModelStoreError
from mlx_server.model_store.progress import ReportStep

EXIT_DISK_FULL = 3
"""The converter's exit code if the disk lacks space; the last word on stderr is the number of bytes
needed.
"""

SILENCE_S = 900.0
"""The converter is killed if it reports no progress for this many seconds."""


def run(name: str, gguf: Path, target: Path, step: ReportStep) -> None:
    """Convert the GGUF file `gguf` to an MLX model in the new folder `target`. `name` is the model's name in
    error messages; `step` is called with the progress.

    Raises ModelStoreError: `disk_full` if the disk lacks the space, `conversion_failed` if the converter
    fails or reports no progress for too long.
    """
    step(0.0, "Converting the weights.")
    command = [sys.executable, "-m", "mlx_server.model_store.gguf.convert", str(gguf), str(target)]
    env = os.environ | engine_environment(target.parent / "blas")
    with tempfile.TemporaryFile("w+", errors="replace") as stderr:
        code, silent = _run(command, env, stderr, step)
        stderr.seek(0)
        lines = stderr.read().strip().splitlines() or [f"exit code {code}"]
    if silent:
        raise _failed(name, gguf, f"the converter made no progress for {SILENCE_S:.0f} s")
    if code == EXIT_DISK_FULL:
        store = target.parent.parent
        raise disk.disk_full_error(name, int(lines[-1].split()[-1]), disk.free_bytes(store), store)
    if code < 0:
        raise _failed(name, gguf, f"the converter was ended by signal {-code}")
    if code != 0:
        raise _failed(name, gguf, lines[-1])


def _run(command: list[str], env: dict[str, str], stderr: IO[str], step: ReportStep) -> tuple[int, bool]:
    """Run the converter. Return its exit code, and whether it was killed because it reported no progress for
    SILENCE_S seconds. `stderr` receives its error output. The converter prints the fraction done line by
    line, and `step` is called for each line.

    The converter is also killed if this function ends by an exception, such as KeyboardInterrupt.
    """
    silent = threading.Event()
    with subprocess.Popen(
        command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, text=True
    ) as process:

        def terminate() -> None:
            silent.set()
            process.kill()

        assert process.stdout
        watch = _watch(terminate)
        try:
            for line in process.stdout:
                watch.cancel()
                watch = _watch(terminate)
                fraction = _fraction(line)
                step(fraction, f"Converting the weights ({int(fraction * 10) * 10} %).")
            return process.wait(), silent.is_set()
        except BaseException:
            process.kill()
            raise
        finally:
            watch.cancel()


def _watch(terminate: Callable[[], None]) -> threading.Timer:
    timer = threading.Timer(SILENCE_S, terminate)
    timer.daemon = True
    timer.start()
    return timer


def _fraction(line: str) -> float:
    try:
        return float(line)
    except ValueError:
        return 0.0


def _failed(name: str, gguf: Path, reason: str) -> ModelStoreError:
    return ModelStoreError(
        "conversion_failed",
        f"{gguf.name}, the source of model {name}, could not be converted: {reason}.",
        "docs/reference/model-families.md says which GGUF files can be; or choose a folder of safetensors.",
    )
