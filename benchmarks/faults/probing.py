"""Send requests around a fault: short probes at fixed times, and one long answer after the other.

The requests are sent from a separate thread, so that code that blocks may inject the fault.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp

from benchmarks.client.requests import MODEL, ClientRequest
from benchmarks.client.returning import Comebacks, Sending, Watcher, ask_until_answered
from benchmarks.faults.outcomes import Request

PROBE_EACH_S = 0.3
AT_ONCE = 6
"""How many probes may wait for an answer. If there are more, none is sent until one has ended."""
RETRY_S = 0.1
REQUEST_TIMEOUT_S = 240.0
LAST_ANSWERS_WITHIN_S = 60.0
TASK_ENDS = ("done", "failed", "cancelled")
LONG_TOKENS = 40
LONG_PROMPT = "Write a long story about a lighthouse keeper and his cat."

Send = Callable[[aiohttp.ClientSession, int], Awaitable[tuple[str, int]]]
"""Sends the request with this number. Returns why there is no whole answer, "" if there is one, and how often
the connection was cut off.
"""


@dataclass(frozen=True)
class Load:
    """Requests to one service, which `stream` names. If `is_probe`, they are sent at fixed times, even if
    earlier ones have no answer yet; otherwise, each is sent when the one before it has ended. `send` sends
    one request.
    """

    stream: str
    send: Send
    is_probe: bool = True


class Prober:
    """Sends the requests of several loads from `start` to `stop`, and records the result of each."""

    def __init__(self, loads: list[Load]) -> None:
        self._loads = loads
        self._requests: list[Request] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="probes", daemon=True)

    def start(self) -> None:
        """Begin to send requests."""
        self._thread.start()

    def answered_since(self, stream: str, at: float) -> bool:
        """Return whether a probe that was sent at the time `at` or later has been answered. `stream` names
        the service that was probed; `at` is a Unix time in seconds.
        """
        return any(
            each.stream == stream and each.is_probe and each.answered and each.began_at >= at
            for each in list(self._requests)
        )

    def stop(self) -> list[Request]:
        """Stop sending, wait up to LAST_ANSWERS_WITHIN_S seconds for the last answers, and return all
        requests. A request that has no answer by then is among them, with `answered` False.
        """
        self._ending.set()
        self._thread.join(LAST_ANSWERS_WITHIN_S + 10)
        return list(self._requests)

    async def _run(self) -> None:
        options: dict[str, Any] = {"timeout": aiohttp.ClientTimeout(total=None), "read_bufsize": 1 << 20}
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with (
            aiohttp.ClientSession(connector=connector, **options) as session,
            asyncio.TaskGroup() as group,
        ):
            for load in self._loads:
                sending = self._probe if load.is_probe else self._repeat
                group.create_task(sending(session, load))

    async def _probe(self, session: aiohttp.ClientSession, load: Load) -> None:
        running: set[asyncio.Task[None]] = set()
        number = 0
        while not self._ending.is_set():
            if len(running) < AT_ONCE:
                number += 1
                task = asyncio.create_task(self._send(session, load, number))
                running.add(task)
                task.add_done_callback(running.discard)
            await asyncio.sleep(PROBE_EACH_S)
        await _last_answers(running)

    async def _repeat(self, session: aiohttp.ClientSession, load: Load) -> None:
        number = 0
        while not self._ending.is_set():
            number += 1
            task = asyncio.create_task(self._send(session, load, number))
            while not task.done() and not self._ending.is_set():
                await asyncio.wait({task}, timeout=RETRY_S)
            await _last_answers({task})

    async def _send(self, session: aiohttp.ClientSession, load: Load, number: int) -> None:
        began, why, cut_offs = time.time(), "no answer while the load ran", 0
        try:
            why, cut_offs = await load.send(session, number)
        finally:
            ended = time.time()
            self._requests.append(Request(load.stream, began, ended, not why, cut_offs, load.is_probe, why))


async def _last_answers(running: set[asyncio.Task[None]]) -> None:
    """Wait for the last answers. Requests that take too long are cancelled, and therefore count as lost."""
    if running:
        _, late = await asyncio.wait(running, timeout=LAST_ANSWERS_WITHIN_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)


# --- what is sent ---


def probes_of_model(stream: str, url: str) -> Load:
    """Return a load of probes for the MLX server at `url`: each asks for one token after a short prompt, on
    its own connection. `stream` names the service in the results.
    """
    run = secrets.token_hex(4)

    def ask(number: int) -> ClientRequest:
        body = {"model": MODEL, "prompt": f"{run} {number}: one, two,", "stream": False}
        return ClientRequest(number, "probe", "/api/generate", body | {"options": {"num_predict": 1}})

    return Load(stream, _returning(url, run, ask))


def long_answers(stream: str, url: str) -> Load:
    """Return a load that requests one streamed answer of LONG_TOKENS tokens after the other from the MLX
    server at `url`, so that every fault comes during an answer. `stream` names the service in the results.
    """
    run = secrets.token_hex(4)

    def ask(number: int) -> ClientRequest:
        message = {"role": "user", "content": f"{run} {number}. {LONG_PROMPT}"}
        body: dict[str, Any] = {"model": MODEL, "stream": True, "temperature": 0, "max_tokens": LONG_TOKENS}
        path = "/v1/chat/completions"
        return ClientRequest(number, "long", path, body | {"messages": [message]})

    return Load(stream, _returning(url, run, ask), is_probe=False)


def _returning(url: str, run: str, ask: Callable[[int], ClientRequest]) -> Send:
    """Return a function that sends the request `ask(number)` to `url` with an Idempotency-Key. It sends the
    request again with the same key after each cut-off, as docs/guide/clients.md recommends, and counts the
    cut-offs.

    `run` is a part of the keys, and distinguishes them from those of other loads.
    """

    async def send(session: aiohttp.ClientSession, number: int) -> tuple[str, int]:
        comebacks = Comebacks()
        watcher = Watcher(comebacks)
        sending = Sending(ask(number), f"faults-{run}-{number}", by_id=False)
        answer = await ask_until_answered(session, url, sending, REQUEST_TIMEOUT_S, watcher)
        return answer.fault or ("" if answer.finished else "the answer has no end"), comebacks.cut_off

    return send


def probes_by_get(stream: str, url: str, headers: dict[str, str] | None = None) -> Load:
    """Return a load of probes, each of which is a GET of `url`. A GET may be repeated, so the client tries
    again until the status is 200, for at most REQUEST_TIMEOUT_S seconds. `stream` names the service in the
    results.
    """

    async def send(session: aiohttp.ClientSession, number: int) -> tuple[str, int]:
        cut_offs, end = 0, time.monotonic() + REQUEST_TIMEOUT_S
        while time.monotonic() < end:
            try:
                async with session.get(url, headers=headers) as response:
                    if response.status == 200:
                        await response.read()
                        return "", cut_offs
            except aiohttp.ClientConnectorError:
                pass  # it was refused, and not cut off
            except (aiohttp.ClientError, OSError):
                cut_offs += 1
            await asyncio.sleep(RETRY_S)
        return f"no answer within {REQUEST_TIMEOUT_S:g} s", cut_offs

    return Load(stream, send)


def tasks(stream: str, url: str, headers: dict[str, str]) -> Load:
    """Return a load that submits tasks to the orchestrator, each one when the task before it has ended. A
    task is answered when the orchestrator reports it as `done`.

    `url` is the address of the orchestrator's route `/tasks`, and `headers` has its token. `stream` names the
    service in the results.
    """
    run = secrets.token_hex(4)

    async def send(session: aiohttp.ClientSession, number: int) -> tuple[str, int]:
        body = {"goal": f"Say hello to reader {number}.", "idempotency_key": f"faults-{run}-{number}"}
        cut_offs, identifier = 0, ""
        while True:
            with contextlib.suppress(ValueError, KeyError):
                try:
                    opening = (
                        session.get(f"{url}/{identifier}", headers=headers)
                        if identifier
                        else session.post(url, json=body, headers=headers)
                    )
                    async with opening as response:
                        said = await response.json()
                        identifier = identifier or str(said["id"])
                        if said.get("state") in TASK_ENDS:
                            return "" if said["state"] == "done" else f"the task {said['state']}", cut_offs
                except aiohttp.ClientConnectorError:
                    pass  # it was refused, and not cut off
                except (aiohttp.ClientError, OSError):
                    cut_offs += 1
            await asyncio.sleep(RETRY_S)

    return Load(stream, send, is_probe=False)


def probes_once(stream: str, url: str, body: dict[str, Any]) -> Load:
    """Return a load of probes, each of which is a POST of `body` to `url`, for a server that keeps no
    answers, such as Ollama. The client does not try again, so an answer that is cut off is lost. `stream`
    names the service in the results.
    """

    async def send(session: aiohttp.ClientSession, number: int) -> tuple[str, int]:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S), session.post(url, json=body) as response:
                await response.read()
                return "" if response.status == 200 else f"status {response.status}", 0
        except (aiohttp.ClientError, OSError) as error:  # a timeout is an OSError, too
            return f"{type(error).__name__}: {error}", 0

    return Load(stream, send)
