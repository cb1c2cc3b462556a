"""Send a request, and come back if the answer is cut off: resume the answer by its id, or send the request
again with the same Idempotency-Key. `Sending` says which of the two a client does.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp

from benchmarks.client.frames import FrameReader, data_of
from benchmarks.client.reading import Answer, read
from benchmarks.client.requests import ClientRequest

RETRY_S = 0.1
"""How many seconds a client waits before it tries again after it was cut off or refused."""
BUSY = 503


@dataclass(frozen=True)
class Sending:
    """A request (`ask`) with its Idempotency-Key (`key`).

    After a cut-off, a client with `by_id` resumes the stream by the answer's id, if it has received that. Any
    other client sends the request again with the key.
    """

    ask: ClientRequest
    key: str
    by_id: bool


@dataclass
class Comebacks:
    """Counts how often an answer was cut off, and how often a client came back to one: by the answer's id, or
    by sending the request again with its Idempotency-Key.
    """

    cut_off: int = 0
    by_id: int = 0
    by_key: int = 0


def _ignore() -> None:
    """Do nothing. This is the default callback of a Watcher."""


@dataclass
class Watcher:
    """Observes the clients of a load. `comebacks` counts how often an answer was cut off, and how often a
    client came back to one. `refused` is called after a refused connection, and `busy` after a 503.
    """

    comebacks: Comebacks
    refused: Callable[[], None] = _ignore
    busy: Callable[[], None] = _ignore


@dataclass
class _Progress:
    """What a client has received so far: the answer, the number of whole `frames`, and the `answer_id` from
    the response's header.
    """

    answer: Answer
    frames: int = 0
    answer_id: str = ""


async def ask_until_answered(
    session: aiohttp.ClientSession,
    url: str,
    sending: Sending,
    timeout_s: float,
    watcher: Watcher,
) -> Answer:
    """Send the request in `sending` to the server at `url`. After each cut-off, failed connection or 503,
    resume the answer by its id, or send the request again with its Idempotency-Key. Stop when the answer is
    complete, when another error is returned, or after `timeout_s` seconds. Return the answer; its `fault`
    says what failed.

    `sending` decides which of the two is done. A request that is sent again is answered from the beginning,
    so the part of the answer that was already received is skipped. `watcher` counts cut-offs, resumed answers
    and repeated requests, and its callbacks are called after a refused connection or a 503.
    """
    progress = _Progress(Answer())
    answer, attempts = progress.answer, 0
    try:
        async with asyncio.timeout(timeout_s):
            while not await _attempt(session, url, sending, progress, watcher, attempts):
                attempts += 1
                await asyncio.sleep(RETRY_S)
    except TimeoutError:
        answer.fault = f"no end within {timeout_s:g} s, after {attempts} further attempts"
    except (ValueError, KeyError) as error:
        answer.fault = f"{type(error).__name__}: {error}"
    return answer


async def _attempt(
    session: aiohttp.ClientSession,
    url: str,
    sending: Sending,
    progress: _Progress,
    watcher: Watcher,
    attempts: int,
) -> bool:
    """Send the request in `sending` once, or resume its answer, and add what arrives to `progress`. Return
    False if another attempt is needed: after a 503, a failed connection, or an answer that was cut off.
    Otherwise return True: either the answer is complete, or `progress.answer.fault` says what failed.

    `attempts` is the number of earlier attempts. If there were any, a response with status 200 is counted in
    `watcher` as a client that came back. `watcher` also counts a cut-off, and its callbacks are called after
    a refused connection or a 503. Raises ValueError or KeyError if the response has unexpected content.
    """
    ask, by_id = sending.ask, sending.by_id and bool(progress.answer_id)
    if by_id:
        address = f"{url}/v1/streams/{progress.answer_id}?from={progress.frames}"
        opening = session.get(address)
    else:
        opening = session.post(url + ask.path, json=ask.body, headers={"Idempotency-Key": sending.key})
    try:
        async with opening as response:
            if response.status == BUSY:
                watcher.busy()
                return False
            if response.status != 200:
                way = "by its id" if by_id else "by its key" if attempts else "at first"
                progress.answer.fault = f"{response.status} {way}: {(await response.text())[:300]}"
                return True
            if attempts:
                watcher.comebacks.by_id += by_id
                watcher.comebacks.by_key += not by_id
            progress.answer_id = response.headers.get("x-request-id", progress.answer_id)
            await _read_response(ask, response, progress, skip=0 if by_id else progress.frames)
    except aiohttp.ClientConnectorError as error:
        if isinstance(error.os_error, ConnectionRefusedError):
            watcher.refused()
        return False
    except (aiohttp.ClientError, OSError):
        watcher.comebacks.cut_off += 1
        return False
    answer = progress.answer
    if not answer.finished and not answer.fault:
        answer.fault = f"the response ends without the end of the answer, after {progress.frames} frames"
    return True


async def _read_response(
    ask: ClientRequest, response: aiohttp.ClientResponse, progress: _Progress, skip: int
) -> None:
    """Add the content of the response to `progress.answer`. A streamed response consists of frames (lines or
    server-sent events); its first `skip` frames are left out, because an earlier response already brought
    them.

    Raises aiohttp.ClientError or OSError if the connection breaks, and ValueError or KeyError if the response
    has unexpected content.
    """
    if not ask.streams:
        read(ask.path, progress.answer, json.loads(await response.read()), time.monotonic())
        return
    frames = FrameReader(response.content_type)
    async for data in response.content.iter_any():
        for frame in frames.feed(data):
            if skip:
                skip -= 1
                continue
            progress.frames += 1
            if message := data_of(frame):
                read(ask.path, progress.answer, json.loads(message), time.monotonic())
