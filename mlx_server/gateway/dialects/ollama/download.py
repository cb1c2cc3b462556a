"""One download of a model, which any number of clients follow. The model store's program does the work in a
child process.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

from mlx_server.gateway.errors import GatewayError, ServerFault, from_code
from mlx_server.gateway.requests.ticket import ClientDisconnected

KNOWN_NOWHERE = "pull model manifest: file does not exist."
"""Ollama's error text for a model that its registry lacks. Clients search for this text."""
TERMINATE_TIMEOUT_S = 5.0
"""The program is killed if it has not exited this long after SIGTERM."""

log = logging.getLogger(__name__)


class Download:
    """Fetches `model` in a child process, which begins once one of `slots` is free. Any number of clients
    (`Follower`) wait for it. `source` is the origin of the files, such as `hf:OWNER/NAME`; it only identifies
    the download in progress reports. With `force`, a model of the Hugging Face hub is fetched even if it does
    not fit into memory.

    `step` is the newest progress report, in Ollama's form. `on_end` is called once, when the child process
    has ended or the last follower has left; no follower can join afterwards.
    """

    def __init__(
        self,
        model: str,
        source: str,
        slots: asyncio.Semaphore,
        on_end: Callable[[Download], None],
        *,
        force: bool = False,
    ) -> None:
        self.step: dict[str, Any] = {"status": "pulling manifest"}
        self.fault: GatewayError | None = None
        self.ended = False
        self._followers: set[Follower] = set()
        self._changed = asyncio.Event()
        self._on_end = on_end
        self._task = asyncio.ensure_future(self._run(model, source, slots, force))

    async def changed(self) -> None:
        """Wait until there is a new step or the download has ended."""
        await self._changed.wait()

    def join(self, follower: Follower) -> None:
        self._followers.add(follower)

    def leave(self, follower: Follower) -> None:
        """Remove a follower. If it was the last one, end the download and terminate its child process."""
        self._followers.discard(follower)
        self._wake()
        if not self._followers and not self.ended:
            self._task.cancel()
            self._end()

    async def _run(self, model: str, source: str, slots: asyncio.Semaphore, force: bool) -> None:
        digest = f"sha256:{hashlib.sha256(source.encode()).hexdigest()}"
        try:
            if slots.locked():
                self._publish({"status": f"waiting to pull {model} until another model's download ends"})
            async with slots, contextlib.aclosing(_reports(model, force)) as reports:
                async for report in reports:
                    if "fraction" in report:
                        self._publish(_step(report, digest))
                        await asyncio.sleep(0)  # followers read this step before the next one replaces it
        except GatewayError as error:
            self.fault = error
        except Exception as error:
            log.exception("The download of %s failed", model)
            self.fault = ServerFault("fetch_failed", f"Fetching {model} failed: {error!r}.")
        if not self.ended:
            self._end()

    def _publish(self, step: dict[str, Any]) -> None:
        self.step = step
        self._wake()

    def _end(self) -> None:
        self.ended = True
        self._on_end(self)
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class Follower:
    """One client of a download. After `cancel`, the client has left the download, and `steps` raises
    ClientDisconnected.
    """

    def __init__(self, request_id: str, download: Download) -> None:
        self.id = request_id
        self._download = download
        self._left = False
        download.join(self)

    def cancel(self) -> None:
        """Stop following the download. It continues for its other followers; without any, it is ended. A
        second call does nothing.
        """
        if not self._left:
            self._left = True
            self._download.leave(self)

    async def steps(self) -> AsyncIterator[dict[str, Any]]:
        """Yield progress reports until the model is installed. A slow reader misses all but the newest
        report.

        Raises GatewayError if the download fails, and ClientDisconnected once the follower has left.
        """
        last: dict[str, Any] | None = None
        while not self._left:
            if self._download.step is not last:
                last = self._download.step
                yield last
            elif not self._download.ended:
                await self._download.changed()
            elif fault := self._download.fault:
                raise type(fault)(fault.code, fault.message)
            else:
                return
        raise ClientDisconnected

    async def finished(self) -> None:
        """Wait until the model is installed. Raises the errors of `steps`."""
        async for _ in self.steps():
            pass


async def _reports(model: str, force: bool) -> AsyncGenerator[dict[str, Any], None]:
    """Run the model store's program, which fetches `model`, in a child process. Yield its reports: JSON
    objects for progress or errors, and an empty dict for a line that is no JSON object. With `force`, a model
    of the hub is fetched even if it does not fit into memory. Raises GatewayError if the program fails, with
    the model store's message if the program reported one.
    """
    process = await _start_program(model, force)
    assert process.stdout is not None
    fault: GatewayError | None = None
    try:
        async for line in process.stdout:
            report = _parsed(line)
            if "error" in report:
                error = report["error"]
                fault = _fault(error["code"], f"{error['message']} {error['remedy']}")
            yield report
        if await process.wait() and fault is None:
            message = f"Fetching {model} ended with exit code {process.returncode}."
            fault = ServerFault("fetch_failed", message)
    finally:
        _terminate(process)
    if fault:
        raise fault


def _fault(code: str, message: str) -> GatewayError:
    """Return the gateway error for an error of the model store. If the model is unknown, the message begins
    with Ollama's own error text, which clients search for.
    """
    if code == "model_not_found":
        message = f"{KNOWN_NOWHERE} {message}"
    return from_code(code, message)


async def _start_program(model: str, force: bool) -> asyncio.subprocess.Process:
    """Start the model store's program, which fetches `model`, in a process group of its own, so that its
    children can be killed with it. With `force`, a model of the hub is fetched even if it does not fit into
    memory.
    """
    forced = ["--force"] if force else []
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mlx_server.model_store", "pull", "--json", *forced, model),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )


def _terminate(process: asyncio.subprocess.Process) -> None:
    """Send SIGTERM to the program unless it has exited, and SIGKILL later if necessary. This function does
    not await anything, because its caller may be cancelled.
    """
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
    """Convert `report`, a progress report of the model store's program, to Ollama's form. If it has the total
    size of the download, the result has the `digest`, which identifies the download and makes clients draw a
    progress bar.

    In addition to Ollama's fields, the field `vestal` of the result then holds the speed in bytes per second
    and the remaining time in seconds, as far as they are known.
    """
    if not (total := report.get("bytes", 0)):
        return {"status": report["sentence"]}
    completed = round(report["fraction"] * total)
    step = {"status": f"pulling {digest[7:19]}", "digest": digest, "total": total, "completed": completed}
    speed = {key: report[key] for key in ("bytes_per_s", "remaining_s") if key in report}
    return step | {"vestal": speed} if speed else step


def _parsed(line: bytes) -> dict[str, Any]:
    """Return the JSON object in `line`, which the model store's program has printed; an empty dict if the
    line is not a JSON object.
    """
    try:
        report = json.loads(line)
    except ValueError:
        return {}
    return report if isinstance(report, dict) else {}
