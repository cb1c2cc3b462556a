"""Run the GGUF converter in a child process: the converter imports mlx, and its callers must not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from mlx_server.engine_environment import engine_environment
from mlx_server.model_store import disk
from mlx_server.model_store.errors import ModelStoreError
from mlx_server.model_store.progress import ReportStep

EXIT_DISK_FULL = 3
"""The converter's exit code if the disk is full; the last word on stderr is the number of bytes it needs."""

TIMEOUT_S = 1800.0


def run(name: str, gguf: Path, target: Path, step: ReportStep) -> None:
    """Convert the file `gguf` to a new folder `target`. Raises ModelStoreError."""
    step(0.0, "Converting the weights.")
    command = [sys.executable, "-m", "mlx_server.model_store.gguf.convert", str(gguf), str(target)]
    env = os.environ | engine_environment(target.parent / "blas")
    try:
        result = subprocess.run(
            command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        raise _failed(name, gguf, f"not finished after {TIMEOUT_S:.0f} s") from error
    if result.returncode == EXIT_DISK_FULL:
        store = target.parent.parent
        raise disk.disk_full_error(name, int(result.stderr.split()[-1]), disk.free_bytes(store), store)
    if result.returncode != 0:
        lines = result.stderr.strip().splitlines() or [f"exit code {result.returncode}"]
        raise _failed(name, gguf, lines[-1])


def _failed(name: str, gguf: Path, reason: str) -> ModelStoreError:
    return ModelStoreError(
        "conversion_failed",
        f"{gguf.name}, the source of model {name}, could not be converted: {reason}",
        "Choose a GGUF of a llama model in Q4_0, Q4_1, Q8_0 or F16, or a folder of safetensors.",
    )
