"""Fetches a model for /api/pull: runs the model store's program and passes on the progress that it prints."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import JSONResponse, Response, StreamingResponse

from mlx_server.gateway.dialects.context import GatewayContext
from mlx_server.gateway.dialects.ollama.render import error_line
from mlx_server.gateway.dialects.ollama.schema import ModelBody
from mlx_server.gateway.dialects.streaming import NDJSON
from mlx_server.gateway.errors import GatewayError, NotFound, ServerFault
from vestal.config import canonical

TERMINATE_TIMEOUT_S = 5.0
"""A program that has not exited this long after SIGTERM is killed."""


async def pull_model(context: GatewayContext, body: ModelBody) -> Response:
    """Stream the progress, or return when the model is there. Raises NotFound for one without a source."""
    source = context.config.model_source(body.model)
    if source is None:
        listed = ", ".join(sorted(canonical(name) for name in context.config.models))
        message = f"Model {body.model!r} has no source in the configuration (`models:`); there are: {listed}."
        raise NotFound("model_not_found", message, model=body.model)
    steps = _progress(context, body.model, source.source)
    if body.stream is not False:
        return StreamingResponse(_lines(steps), media_type=NDJSON)
    async for _ in steps:
        pass
    return JSONResponse({"status": "success"})


async def _lines(steps: AsyncIterator[dict[str, Any]]) -> AsyncIterator[str]:
    try:
        async for step in steps:
            yield json.dumps(step, ensure_ascii=False) + "\n"
        yield json.dumps({"status": "success"}) + "\n"
    except GatewayError as error:
        yield error_line(error)


async def _progress(context: GatewayContext, name: str, source: str) -> AsyncIterator[dict[str, Any]]:
    """Yield the progress as Ollama writes it. Raises ServerFault with the message of the model store."""
    digest = f"sha256:{hashlib.sha256(source.encode()).hexdigest()}"
    process = await _start_program(name)
    assert process.stdout is not None
    fault: ServerFault | None = None
    try:
        yield {"status": f"pulling {name}"}
        async for line in process.stdout:
            report = _parsed(line)
            if "error" in report:
                error = report["error"]
                fault = ServerFault(error["code"], f"{error['message']} {error['remedy']}")
            elif "fraction" in report:
                yield _step(report, digest)
        if await process.wait() and fault is None:
            fault = ServerFault("fetch_failed", f"Fetching {name} ended with exit code {process.returncode}.")
    finally:
        _terminate(process)
        context.installed_models.changed()
    if fault:
        raise fault


async def _start_program(name: str) -> asyncio.subprocess.Process:
    """Run the program in a process group of its own, so that its children are killed with it."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mlx_server.model_store", "ensure", "--json", name),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )


def _terminate(process: asyncio.subprocess.Process) -> None:
    """Terminate the program unless it has exited. This awaits nothing, as the caller may be cancelled."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    asyncio.get_running_loop().call_later(TERMINATE_TIMEOUT_S, _kill, process)


def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _step(report: dict[str, Any], digest: str) -> dict[str, Any]:
    """Return one step of the progress. Clients draw a bar for a digest whose total is known."""
    if not (total := report.get("bytes", 0)):
        return {"status": report["sentence"]}
    completed = round(report["fraction"] * total)
    return {"status": report["sentence"], "digest": digest, "total": total, "completed": completed}


def _parsed(line: bytes) -> dict[str, Any]:
    """Return the object on a line of the program's output, or an empty one."""
    try:
        report = json.loads(line)
    except ValueError:
        return {}
    return report if isinstance(report, dict) else {}
