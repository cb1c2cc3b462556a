"""What the agent says about writes of a gateway that has ended since it reported that they fail."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from host_agent.journal import Journal
from host_agent.services.disk_report import DiskReport
from host_agent.services.mlx import service
from host_agent.services.mlx.service import MlxService
from vestal.config import load


async def test_failed_writes_of_a_gateway_are_no_longer_reported_once_it_has_ended(
    home: Path, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
):
    """Earlier, the status said until the agent's end that files cannot be written, if the gateway was stopped
    or given up while the disk was full.
    """
    monkeypatch.setattr(service, "STATUS_TIMEOUT_S", 60.0)
    gateway, port = await asyncio.create_subprocess_exec("sleep", "60"), free_port()
    failing = {"failed": 3, "failing_since": time.time(), "error": "No space left on device"}

    async def health(request: web.Request) -> web.Response:
        failures = {"mlx_server": {"log": failing}}
        return web.json_response({"status": "ok", "pid": gateway.pid, "write_failures": failures})

    app = web.Application()
    app.router.add_get("/health", health)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    config = load({"VESTAL_HOME": str(home), "VESTAL_MLX_PORT": str(port)})
    config.home.prepare()
    journal = Journal(config.home.journal_db)
    async with aiohttp.ClientSession() as session:
        mlx = MlxService(config, session)
        disk = DiskReport(config.home, lambda: mlx.write_failures, mlx.engine_status, journal)
        await mlx.answer(fresh=True)
        await disk.record_change()
        assert "No space left on device" in disk.as_json()["message"]
        await runner.cleanup()
        await disk.record_change()
        assert disk.as_json()["message"], "the gateway may be busy, and its disk still full"
        gateway.kill()
        await gateway.wait()
        await disk.record_change()
    assert disk.as_json()["message"] == ""
    assert [entry["event"] for entry in journal.since(0)] == ["disk_not_writable", "disk_writable_again"]
    journal.close()
