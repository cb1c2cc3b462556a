"""Run a separate Docker engine for the benchmark, in a network namespace of its own.

It shares nothing with the machine's own engine: no data, socket, containerd, bridge or firewall rules. A
second dockerd in the machine's own network would interfere with the bridge `docker0`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

REPO = Path(__file__).resolve().parents[2]
IMAGE = "vestal-faults-orchestrator:local"
CLONE_NEWNET = 0x40000000
UP_WITHIN_S, DOWN_WITHIN_S, BUILT_WITHIN_S = 60.0, 60.0, 600.0
LOOK_S = 0.05


def lacking() -> str:
    """Return why the benchmark cannot run a Docker engine of its own on this machine; "" if it can."""
    if sys.platform != "linux" or os.getuid() != 0 or not shutil.which("dockerd") or not shutil.which("ip"):
        return "only root of a Linux machine with dockerd can run a Docker engine of its own"
    if _run("docker", "compose", "ls").returncode:
        return "no Docker engine with compose answers, in which the image could be built"
    return ""


@contextlib.contextmanager
def own_network() -> Iterator[None]:
    """Give this thread, and the processes it starts in the `with` block, a network namespace with only a
    loopback device. Raises OSError if that is not permitted.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as before:
        if libc.unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "No network namespace could be made.")
        try:
            _must("ip", "link", "set", "lo", "up")
            yield
        finally:
            libc.setns(before.fileno(), CLONE_NEWNET)


class DockerEngine:
    """A dockerd process with its own containerd, which runs from entering to leaving the context.

    It must be entered within `own_network`.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="vestal-faults-"))
        self.host = f"unix://{self._folder}/docker.sock"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start dockerd and wait until it answers. Raises RuntimeError, with the end of its log, if it does
        not.
        """
        folder, log = self._folder, self._folder / "log"
        options = {
            "--data-root": folder / "data",
            "--exec-root": folder / "exec",
            "--pidfile": folder / "pid",
            "--host": self.host,
        }
        command = ["dockerd", *(f"{name}={value}" for name, value in options.items())]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        end = time.monotonic() + UP_WITHIN_S
        while self.docker("info").returncode:
            if time.monotonic() > end or self._process.poll() is not None:
                raise RuntimeError(f"dockerd did not start: {log.read_text(errors='replace')[-300:]}")
            time.sleep(LOOK_S)

    def stop(self) -> None:
        """Stop dockerd as a service manager does: by SIGTERM, and by SIGKILL if that takes too long."""
        process = self._process
        if process is None:
            return
        process.terminate()
        try:
            process.wait(DOWN_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def docker(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a `docker` command against this engine, and return the finished process."""
        return _run("docker", "--host", self.host, *arguments)

    def load_image(self) -> None:
        """Build the orchestrator's image in the machine's own engine, and copy it into this one.

        Raises RuntimeError, with the end of the output, if the build or the copy fails.
        """
        arguments: list[str] = []
        if base := os.environ.get("VESTAL_PYTHON_IMAGE"):
            arguments += ["--build-arg", f"PYTHON_IMAGE={base}"]
        if ca := os.environ.get("VESTAL_BUILD_CA"):
            arguments += ["--secret", f"id=ca,src={ca}"]
        file = str(REPO / "deploy" / "Dockerfile")
        _must("docker", "build", "--quiet", "--tag", IMAGE, "--file", file, *arguments, str(REPO))
        with subprocess.Popen(["docker", "save", IMAGE], stdout=subprocess.PIPE) as saving:
            loading = ["docker", "--host", self.host, "load", "--quiet"]
            loaded = subprocess.run(loading, stdin=saving.stdout, capture_output=True, text=True)
        if loaded.returncode:
            raise RuntimeError(f"The image could not be loaded: {loaded.stderr[-300:]}")

    def close(self) -> None:
        """Stop dockerd and delete its data. Its bridges disappear with their network namespace."""
        self.stop()
        for mount in self._mounts():
            _run("umount", "--lazy", mount)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _mounts(self) -> list[str]:
        with contextlib.suppress(OSError):
            points = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
            return [point for point in reversed(points) if point.startswith(f"{self._folder}/")]
        return []


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            env=os.environ | {"DOCKER_BUILDKIT": "1"},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=BUILT_WITHIN_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def _must(*command: str) -> None:
    done = _run(*command)
    if done.returncode:
        raise RuntimeError(f"`{' '.join(command[:3])} …` failed: {done.stderr.strip()[-300:]}")
