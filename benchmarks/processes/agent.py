"""Run a host agent in a home folder and on ports of its own. The agent starts the gateway, the engine and the
orchestrator as processes, not in containers.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from benchmarks.processes.gateway import free_port, installed_models

UP_WITHIN_S = 120.0


@dataclass
class AgentProcess:
    """A running agent, its port and its token."""

    process: psutil.Process
    port: int
    token: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


@contextmanager
def agent() -> Iterator[AgentProcess]:
    """Run an agent in its own home and on its own ports and yield it; stop it gracefully at the end of the
    `with` block.
    """
    with tempfile.TemporaryDirectory(prefix="vestal-bench-") as home:
        port = free_port()
        own = {
            "VESTAL_HOME": home,
            "VESTAL_MODELS_DIR": str(installed_models()),
            "VESTAL_AGENT_PORT": str(port),
        }
        own |= {"VESTAL_MLX_PORT": str(free_port()), "VESTAL_ORCHESTRATOR_PORT": str(free_port())}
        own |= {"VESTAL_ORCHESTRATOR__MODE": "native", "VESTAL_OLLAMA__MANAGE": "off"}
        with (Path(home) / "agent.log").open("wb") as log:
            command = [sys.executable, "-m", "host_agent.cli.main", "agent"]
            popen = subprocess.Popen(command, env=os.environ | own, stdout=log, stderr=log)
        try:
            token = Path(home) / "token"
            while not token.exists():
                time.sleep(0.05)
            yield AgentProcess(psutil.Process(popen.pid), port, token.read_text().strip())
        finally:
            popen.terminate()
            popen.wait()


async def get(session: aiohttp.ClientSession, path: str) -> dict[str, Any]:
    """Return the JSON object that a GET of `path` is answered with. Raises aiohttp.ClientError if the request
    fails.
    """
    async with session.get(path) as reply:
        found: dict[str, Any] = await reply.json()
        return found


async def until_healthy(session: aiohttp.ClientSession) -> None:
    """Wait until the stack is healthy. Raises TimeoutError if it is not within UP_WITHIN_S seconds."""
    until = time.monotonic() + UP_WITHIN_S
    while time.monotonic() < until:
        try:
            if (await get(session, "/status"))["healthy"]:
                return
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(0.2)
    raise TimeoutError(f"not healthy within {UP_WITHIN_S:g} s")
