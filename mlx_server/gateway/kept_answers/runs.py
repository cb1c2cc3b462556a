"""Make the ASGI `receive` function with which a request runs. The first run reads the body from the client's
connection. A later run has no connection, so its `receive` and its ASGI scope are made from the request's
records in the answer log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from starlette.types import Scope

from mlx_server import protocol
from mlx_server.gateway.answer_log import Accepted, Event, Left, Record, Referenced, Silence, TakenUp
from mlx_server.gateway.kept_answers.history import Item
from mlx_server.gateway.kept_answers.kept_answer import KeptAnswer
from mlx_server.gateway.kept_answers.rendering import Message, Receive


def scope_of(head: Accepted, application: Any) -> Scope:
    """Return the ASGI scope of a request that was accepted earlier. `application` becomes the scope's
    `app`.
    """
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": head.method,
        "scheme": "http",
        "path": head.path,
        "raw_path": head.path.encode(),
        "query_string": head.query.encode("latin-1"),
        "root_path": "",
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in head.headers],
        "client": None,
        "server": None,
        "state": {},
        "app": application,
    }


def head_of(records: Sequence[Record]) -> Accepted | None:
    """Return the first record of a request in the answer log, with what the request's body refers to; None if
    the records do not begin with a request.
    """
    head = records[0] if records else None
    if not isinstance(head, Accepted):
        return None
    parts = next((record.parts for record in records if isinstance(record, Referenced)), ())
    return msgspec.structs.replace(head, referenced=head.referenced or parts)


def with_whole_head(records: Sequence[Record]) -> Sequence[Record]:
    """Return the records of an answer in the form in which another machine gets them: the first record also
    holds what the request's body refers to, even if the log has this in a later record.
    """
    head = head_of(records)
    return records if head is None else [head, *records[1:]]


def is_suspended(records: Sequence[Record]) -> bool:
    """Return whether the client of the request left, and no client has asked for the answer since."""
    marks = [record for record in records if isinstance(record, Left | TakenUp)]
    return bool(marks) and isinstance(marks[-1], Left)


def history_of(records: Sequence[Record]) -> list[tuple[int, Item]]:
    """Return the items that the request's clients have received, in order, according to the request's records
    in the answer log. Each is a pair (number of the answer, item); an item is a token, the end of the answer
    or a keep-alive.
    """
    history: list[tuple[int, Item]] = []
    for record in records:
        if isinstance(record, Silence):
            history.append((record.answer, record))
        elif isinstance(record, Event) and not isinstance(record.event, protocol.Failed):
            history.append((record.answer, record.event))
    return history


def receiving(
    receive: Receive, answer: KeptAnswer, place: Callable[[KeptAnswer], Awaitable[bool]]
) -> Receive:
    """Return the ASGI `receive` function for the first run of a request. The returned function delivers the
    request's body, which it reads from the client's connection; the argument `receive` is the function of
    this connection.

    If the client disconnects while it sends the body, `http.disconnect` is delivered at once. After the body,
    `http.disconnect` is delivered only when no client reads `answer` any more: when this client disconnects,
    other clients may still read the answer over their own connections.

    When the body is complete, `place` is called to have another machine serve the request. If one does,
    `http.disconnect` is delivered instead of the body's last part, which ends the run on this machine. A call
    of the returned function may be cancelled and repeated: no part of the body is lost, and `place` is called
    only once.
    """
    last_part: list[asyncio.Task[Message]] = []  # once it has arrived, until it is delivered

    async def placed(message: Message) -> Message:
        return {"type": "http.disconnect"} if await place(answer) else message

    async def next_message() -> Message:
        if not answer.body.is_whole.is_set():
            message = await receive()
            answer.body.add(message)
            if message["type"] == "http.disconnect":  # its body will never be complete
                answer.leave()
            if message["type"] == "http.disconnect" or not answer.body.is_whole.is_set():
                return message
            last_part.append(asyncio.ensure_future(placed(message)))
            if answer.task is not None:
                answer.task.add_done_callback(lambda _: last_part[0].cancel() if last_part else None)
        if last_part:
            message = await asyncio.shield(last_part[0])
            last_part.clear()
            return message
        await answer.client_left.wait()
        return {"type": "http.disconnect"}

    return next_message


def replaying(body: bytes, answer: KeptAnswer) -> Receive:
    """Return the ASGI `receive` function with which a request is run again from its records in the answer
    log. The function delivers `body`, the request's body from these records. After that, it waits until the
    last client that reads `answer` has left, and delivers `http.disconnect`.
    """
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        if messages:
            return messages.pop()
        await answer.client_left.wait()
        return {"type": "http.disconnect"}

    return next_message
