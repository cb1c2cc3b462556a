"""Fetching a model for /api/pull: the store's own program in a process beside, its progress passed on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import JSONResponse, Response, StreamingResponse

from host_agent.config import canonical
from mlx_server.gateway import errors
from mlx_server.gateway.answering import NDJSON
from mlx_server.gateway.errors import NotFound, ServerFault
from mlx_server.gateway.ollama_schema import ModelBody
from mlx_server.gateway.pieces import Pieces

PARTS = 1000
"""The store knows fractions; Ollama's clients want a total and what of it is done."""


async def answer(pieces: Pieces, body: ModelBody) -> Response:
    """Streams the progress, or waits for the end of it. Raises NotFound for what is not configured."""
    source = pieces.config.model_source(body.model)
    if source is None:
        listed = ", ".join(sorted(canonical(name) for name in pieces.config.models))
        message = f"model {body.model!r} has no source in the configuration (`models:`); there are: {listed}"
        raise NotFound("model_not_found", message, model=body.model)
    steps = _steps(pieces, body.model)
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


async def _steps(pieces: Pieces, name: str) -> AsyncIterator[dict[str, Any]]:
    """Raises ServerFault with the store's own sentence."""
    command = [sys.executable, "-m", "mlx_server.model_store", "ensure", "--json", name]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
    )
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
                done = round(told["fraction"] * PARTS)
                yield {"status": told["sentence"], "total": PARTS, "completed": done}
        if await process.wait() and fault is None:
            fault = ServerFault("fetch_failed", f"fetching {name} ended with code {process.returncode}")
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
        pieces.models.changed()
    if fault:
        raise fault


def _told(line: bytes) -> dict[str, Any]:
    try:
        told = json.loads(line)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
