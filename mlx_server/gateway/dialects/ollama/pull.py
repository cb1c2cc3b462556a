"""Fetching a model for /api/pull: the store's own program in a process beside, its progress passed on."""

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

from mlx_server.gateway import errors
from mlx_server.gateway.dialects.context import GatewayContext
from mlx_server.gateway.dialects.ollama.schema import ModelBody
from mlx_server.gateway.dialects.streaming import NDJSON
from mlx_server.gateway.errors import NotFound, ServerFault
from vestal.config import canonical

STOP_S = 5.0
"""A fetch that is told to stop and has not after so long is killed."""


async def answer(pieces: GatewayContext, body: ModelBody) -> Response:
    """Streams the progress, or waits for the end of it. Raises NotFound for what is not configured."""
    source = pieces.config.model_source(body.model)
    if source is None:
        listed = ", ".join(sorted(canonical(name) for name in pieces.config.models))
        message = f"model {body.model!r} has no source in the configuration (`models:`); there are: {listed}"
        raise NotFound("model_not_found", message, model=body.model)
    steps = _steps(pieces, body.model, source.source)
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
    except errors.GatewayError as error:
        yield errors.line(error)


async def _steps(pieces: GatewayContext, name: str, source: str) -> AsyncIterator[dict[str, Any]]:
    """Raises ServerFault with the store's own sentence."""
    digest = f"sha256:{hashlib.sha256(source.encode()).hexdigest()}"
    process = await _start(name)
    assert process.stdout is not None
    fault: ServerFault | None = None
    try:
        yield {"status": f"pulling {name}"}
        async for line in process.stdout:
            told = _told(line)
            if "error" in told:
                error = told["error"]
                fault = ServerFault(error["code"], f"{error['message']} {error['remedy']}")
            elif "fraction" in told:
                yield _step(told, digest)
        if await process.wait() and fault is None:
            fault = ServerFault("fetch_failed", f"fetching {name} ended with code {process.returncode}")
    finally:
        _stop(process)
        pieces.models.changed()
    if fault:
        raise fault


async def _start(name: str) -> asyncio.subprocess.Process:
    """In a group of its own: what it runs is stopped with it."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mlx_server.model_store", "ensure", "--json", name),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )


def _stop(process: asyncio.subprocess.Process) -> None:
    """The client has left, or it is done. Awaits nothing: whoever asked may be cancelled already."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    asyncio.get_running_loop().call_later(STOP_S, _kill, process)


def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _step(told: dict[str, Any], digest: str) -> dict[str, Any]:
    """A line of progress; clients draw a bar for a digest whose total is known."""
    if not (total := told.get("bytes", 0)):
        return {"status": told["sentence"]}
    completed = round(told["fraction"] * total)
    return {"status": told["sentence"], "digest": digest, "total": total, "completed": completed}


def _told(line: bytes) -> dict[str, Any]:
    try:
        told = json.loads(line)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
