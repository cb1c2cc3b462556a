"""Describe the machine and the versions of a run, because a figure means nothing without them."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from benchmarks.peers import installed_versions

REPO = Path(__file__).resolve().parents[2]
PROGRAM = ("vestal", "mlx_server", "host_agent", "orchestrator", "requirements", "pyproject.toml")
"""The files that are measured. A change of any other file does not make a figure out of date."""
PACKAGES = ("mlx", "mlx-lm", "numpy", "aiohttp", "uvicorn")


def describe() -> dict[str, Any]:
    """Return the machine's cores, processor, memory, system and versions, and its current load."""
    return {
        "began_at": round(time.time()),
        "date": time.strftime("%Y-%m-%d"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "accelerator": _accelerator(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "vestal": program_version(),
        "load_before": round(os.getloadavg()[0], 1),
        "peers": installed_versions(),
    }


def program_version() -> str:
    """Return the commit that last changed the program, followed by `+` if there are uncommitted changes."""
    commit = _output("git", "log", "-1", "--format=%h", "--", *PROGRAM)
    changed = _output("git", "status", "--porcelain", "--", *PROGRAM)
    return (commit or "unknown") + ("+" if changed else "")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _processor() -> str:
    """Return the processor's name, followed by `with AVX-512` if it has these instructions. Virtual machines
    hide the rest of the name, and these instructions change the figures most.
    """
    if sys.platform == "darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string")
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    fields = {name.strip(): text.strip() for name, _, text in (line.partition(":") for line in lines)}
    has_avx_512 = "avx512f" in fields.get("flags", "").split()
    return fields.get("model name", "") + (" with AVX-512" if has_avx_512 else "")


def _accelerator() -> str:
    """Return `Metal` on macOS. Elsewhere, return the names of the machine's NVIDIA GPUs, one a line, or
    `none` if `nvidia-smi` reports no GPU.
    """
    if sys.platform == "darwin":
        return "Metal"
    return _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader") or "none"


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
