"""The stack's containers as Docker reports them, and functions that kill them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

PULLED_WITHIN_S = 300

KILL = """
import os, signal
for name in filter(str.isdigit, os.listdir("/proc")):
    with open(f"/proc/{name}/cmdline") as command:
        words = command.read().split("\\0")
    if words[:3] == ["python", "-m", "orchestrator"]:
        os.kill(int(name), signal.SIGKILL)
"""

OVERRUN = """
import os
for name in filter(str.isdigit, os.listdir("/proc")):
    with open(f"/proc/{name}/cmdline") as command:
        if "orchestrator" in command.read():  # same user: it may offer itself to the kernel first
            with open(f"/proc/{name}/oom_score_adj", "w") as score:
                score.write("1000")
blocks = []
while True:
    blocks.append(bytearray(os.urandom(1 << 20)) * 8)
"""


def docker(*arguments: str, timeout_s: float = 300) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=timeout_s)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def lacking(repo: Path) -> str:
    """Return why no container can run here; empty if one can."""
    if not _succeeds("compose", "ls"):
        return "no Docker engine with compose answers"
    image = _base_image(repo)
    if _succeeds("image", "inspect", image) or _succeeds("pull", "--quiet", image, timeout_s=PULLED_WITHIN_S):
        return ""
    return (
        f"the base image {image} is neither here nor can it be pulled; VESTAL_PYTHON_IMAGE may name another"
    )


def _base_image(repo: Path) -> str:
    """Return the base image of the build, from the environment or a `.env` file as compose reads them."""
    file = ("--project-directory", str(repo), "--file", str(repo / "docker-compose.yml"))
    config = json.loads(docker("compose", *file, "config", "--format", "json"))
    return str(config["services"]["orchestrator"]["build"]["args"]["PYTHON_IMAGE"])


def _succeeds(*arguments: str, timeout_s: float = 120) -> bool:
    try:
        done = subprocess.run(["docker", *arguments], capture_output=True, timeout=timeout_s)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def container(stack: Any, service: str) -> dict[str, Any]:
    """Return the `docker inspect` record of a service's container."""
    name = stack.until(lambda: container_id(stack, service), f"{service} has a container")
    return json.loads(docker("inspect", name))[0]


def container_id(stack: Any, service: str) -> str:
    labels = (f"com.docker.compose.project={stack.project}", f"com.docker.compose.service={service}")
    filters = [part for label in labels for part in ("--filter", f"label={label}")]
    return docker("ps", "-aq", *filters)


def kill_its_process(name: str) -> None:
    """Send SIGKILL to the orchestrator's own process; Docker's events then show only its end."""
    _python(name, KILL)


def overrun(name: str) -> None:
    """Fill the container's memory until the kernel kills its main process, and so the container."""
    _python(name, OVERRUN)


def _python(name: str, program: str) -> None:
    command = ["docker", "exec", "-i", name, "python", "-"]
    subprocess.run(command, input=program, text=True, capture_output=True, timeout=300)
