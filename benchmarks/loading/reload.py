"""Measure how fast a large model is loaded, compared with `dd` of its files, and how long a restart with that
model takes.

    python -m benchmarks.loading.reload [ROUNDS]

Two models with random weights are measured, one after the other: 6 GB of float32, and 3 GB of bfloat16, which
Vestal converts to float32 if it computes on a CPU. With ROUNDS 1 instead of 3 (the default), they have 1 GB
and 0.5 GB. "Cold" means that the files are not in the page cache. dd reads the files and keeps nothing. If
the files are in the page cache, dd's speed is therefore an upper bound for loaders. The models are deleted at
the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Generator
from pathlib import Path

import psutil

from benchmarks.figures import VESTAL, Figure
from benchmarks.loading.model_folder import make
from benchmarks.processes.gateway import GatewayProcess, installed_models
from benchmarks.scenario import Log, Scenario, Subjects, progress, run_alone
from benchmarks.serving.servers import MLX_LM, SETTINGS
from mlx_server.engine_environment import engine_environment

FULL_BYTES, QUICK_BYTES = 6e9, 1e9
DD = "dd"
NAME, LIKE = "big", "smollm2__135m"
LOAD_TIMEOUT_S, RESTART_TIMEOUT_S = 300.0, 300.0
CONFIG = "mlx: {{preload: [big], progress_timeout_s: 120}}\nmodels: {{big: {{source: 'path:{folder}'}}}}\n"
OURS = """
import sys, time
from pathlib import Path
from mlx_server import blas
blas.preload()
from mlx_server.engine.import_patches import import_mlx_lm, import_transformers
import_transformers(); import_mlx_lm()
from mlx_server.engine.generation.prompts.templates.process import start_process_ahead
from mlx_server.engine.models.loading import load
from mlx_server.engine.models.tokenizers import preload_tokenizers
from mlx_server.model_store import ModelEntry
folder = Path(sys.argv[1])
start_process_ahead()
preload_tokenizers([folder])
entry = ModelEntry("big", folder, "generate", 1, 1, 0.0, "mlx", "llama", "", "", 2048, digest="big")
began = time.perf_counter()
loader = load(entry)
while True:
    try:
        next(loader)
    except StopIteration as end:
        model = end.value
        break
print(time.perf_counter() - began)
model.close()
"""
"""A load as by a standby engine, which has already read the tokenizer and started a template process."""
THEIRS = """
import sys, time
from mlx_server import blas
blas.preload()
from mlx_lm.utils import load
began = time.perf_counter()
model = load(sys.argv[1])
print(time.perf_counter() - began)
"""
"""A load as by mlx_lm.server before it serves. It keeps bfloat16."""


def measure(log: Log, subjects: Subjects, rounds: int) -> None:
    size = QUICK_BYTES if rounds == 1 else FULL_BYTES
    with tempfile.TemporaryDirectory(prefix="vestal-bench-reload-") as scratch:
        for dtype, share in (("F32", 1.0), ("BF16", 0.5)):
            store = Path(scratch) / dtype
            if lacking := _lacking(Path(scratch), size):
                raise SystemExit(lacking)
            progress(f"  writing {size * share / 1e9:g} GB of {dtype}")
            stored = make(store / NAME, size * share, dtype, installed_models() / LIKE)
            _measure_loads(log, subjects, rounds, store / NAME, dtype.lower(), stored)
            if dtype == "F32" and subjects.wants(VESTAL):
                _measure_restarts(log, rounds, store / NAME)
            shutil.rmtree(store)


def _lacking(scratch: Path, size: float) -> str:
    """Return a sentence that says what this machine lacks for measuring a model of `size` bytes: free disk
    space in the folder `scratch`, to which the model is written, or memory. Return "" if nothing is lacking.
    """
    if shutil.disk_usage(scratch).free < 2 * size:
        return (
            f"{scratch} has no room for a model of {size / 1e9:g} GB: free some of the disk, or set TMPDIR."
        )
    if psutil.virtual_memory().available < 2.2 * size:
        return (
            f"Less than {2.2 * size / 1e9:.0f} GB of memory is available, for the model and the page cache."
        )
    return ""


def _measure_loads(
    log: Log, subjects: Subjects, rounds: int, folder: Path, dtype: str, stored_bytes: int
) -> None:
    files = sorted(folder.glob("*.safetensors"))
    loaders: dict[str, Callable[[], float]] = {
        DD: lambda: _dd_s(files),
        VESTAL: lambda: _load_s(OURS, folder),
        MLX_LM: lambda: _load_s(THEIRS, folder),
    }
    states = ["cold", "cached"] if hasattr(os, "posix_fadvise") else ["cached"]
    for number in range(1, rounds + 1):
        for state in states:
            row = f"reload/{dtype}/{state}_gb_per_s"
            rates: dict[str, float] = {}
            for subject, seconds in loaders.items():
                if not subjects.wants(subject) and subject != DD:
                    continue
                _drop(files) if state == "cold" else _dd_s(files)
                try:
                    rates[subject] = stored_bytes / seconds() / 1e9
                    log(Figure(row, subject, rates[subject], "GB/s", "higher", number))
                except (subprocess.SubprocessError, OSError, ValueError) as error:
                    log(Figure(row, subject, failed=_one_sentence(error), round=number))
            if VESTAL in rates:
                share = rates[VESTAL] / rates[DD]
                log(Figure(f"reload/{dtype}/{state}_share_of_dd", VESTAL, share, "× dd", "higher", number))
            progress(f"  {number} {row}: {', '.join(f'{name} {rate:.2f}' for name, rate in rates.items())}")


def _dd_s(files: list[Path]) -> float:
    """Return the seconds that dd takes to read the files, one after the other."""
    began = time.perf_counter()
    for file in files:
        command = ["dd", f"if={file}", "of=/dev/null", "bs=16777216"]
        subprocess.run(command, check=True, capture_output=True, timeout=LOAD_TIMEOUT_S)
    return time.perf_counter() - began


def _drop(files: list[Path]) -> None:
    """Flush unwritten data of the files to the disk, and drop the files from the page cache."""
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _load_s(program: str, folder: Path) -> float:
    """Run `program`, the source text OURS or THEIRS, in a separate process. Return the seconds that it
    reports for loading the model in `folder`, which do not include its imports. Raises ValueError if it
    fails.
    """
    with tempfile.TemporaryDirectory(prefix="vestal-bench-") as cache:
        env = os.environ | engine_environment(Path(cache)) | {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
        command = [sys.executable, "-c", program, str(folder)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=LOAD_TIMEOUT_S)
    if done.returncode:
        raise ValueError(f"The load ended with {done.returncode}: {done.stderr[-400:]}")
    return float(done.stdout.split()[-1])


def _measure_restarts(log: Log, rounds: int, folder: Path) -> None:
    """Start a gateway whose engine loads the model in `folder`, and kill the engine with SIGKILL `rounds`
    times. Log, for each kill, the seconds until the first token of a request that is sent at once. If that
    fails, log the failure and make no further round.
    """
    row = "reload/restart_s"
    stopped = GatewayProcess(**SETTINGS)
    (stopped.home / "vestal.yaml").write_text(CONFIG.format(folder=folder))
    with stopped as gateway:
        try:
            gateway.until_ok(RESTART_TIMEOUT_S)
            for _ in _tokens(gateway.url):
                pass
            for number in range(1, rounds + 1):
                seconds = _restart_s(gateway)
                log(Figure(row, VESTAL, seconds, "s", "lower", number))
                progress(f"  {number} {row}: {seconds:.2f}")
        except (OSError, TimeoutError, StopIteration) as error:
            log(Figure(row, VESTAL, failed=_one_sentence(error)))


def _restart_s(gateway: GatewayProcess) -> float:
    time.sleep(5.0)  # so that the standby engine can start
    pid = gateway.engine_pid()
    if pid is None:
        raise OSError("There is no engine to kill.")
    began = time.perf_counter()
    psutil.Process(pid).kill()
    with contextlib.closing(_tokens(gateway.url)) as tokens:
        next(tokens)
    return time.perf_counter() - began


def _tokens(url: str) -> Generator[str]:
    """Request a short answer from the gateway at `url`, and yield the parts of its text as they arrive. The
    last part is yielded even if it is empty, because random weights may generate tokens without text.
    """
    body = {"model": "big", "prompt": "Hello", "raw": True, "stream": True, "options": {"num_predict": 4}}
    request = urllib.request.Request(f"{url}/api/generate", json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=RESTART_TIMEOUT_S) as answer:
        for line in answer:
            part = json.loads(line)
            if part.get("response") or part.get("done"):
                yield str(part.get("response", ""))


def _one_sentence(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"


SCENARIO = Scenario(
    "reload",
    "load of a large model, cold and from the page cache, compared with dd and mlx_lm; a restart with it",
    quick_s=35,
    full_s=600,
    run=measure,
    full_rounds=3,
)

if __name__ == "__main__":
    run_alone(SCENARIO, sys.argv[1:])
