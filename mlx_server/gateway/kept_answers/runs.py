"""Make the ASGI scope and `receive` with which a request is run, from its connection or from the log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from starlette.types import Scope

from mlx_server import protocol
from mlx_server.gateway.answer_log import Accepted, Event, Left, Record, Silence, TakenUp
from mlx_server.gateway.kept_answers.history import Item
from mlx_server.gateway.kept_answers.kept_answer import KeptAnswer
from mlx_server.gateway.kept_answers.rendering import Message, Receive


def scope_of(head: Accepted, application: Any) -> Scope:
    """Return the scope of a request that was accepted earlier. `application` is the app of its route."""
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


def is_suspended(records: Sequence[Record]) -> bool:
    """Return whether the client of the request had left, and nobody has asked for it since."""
    marks = [record for record in records if isinstance(record, Left | TakenUp)]
    return bool(marks) and isinstance(marks[-1], Left)


def history_of(records: Sequence[Record]) -> list[tuple[int, Item]]:
    """Return the items that the client of a request was given, from its records."""
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
    """Return the ASGI `receive` of a run: the body from the connection, then the last client's disconnection.

    At the end of the body, `place` is asked whether another machine serves the request; if so, the run ends.
    """

    async def next_message() -> Message:
        if answer.body.is_whole.is_set():
            await answer.client_left.wait()
            return {"type": "http.disconnect"}
        message = await receive()
        answer.body.add(message)
        if answer.body.is_whole.is_set() and message["type"] == "http.request" and await place(answer):
            return {"type": "http.disconnect"}
        return message

    return next_message


def replaying(body: bytes, answer: KeptAnswer) -> Receive:
    """Return the ASGI `receive` of a run whose body was received earlier."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        if messages:
            return messages.pop()
        await answer.client_left.wait()
        return {"type": "http.disconnect"}

    return next_message
