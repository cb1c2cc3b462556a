"""The numbered events of one response, from its creation to its end, as JSON or as server-sent events.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from mlx_server.gateway.dialects.answer_parts import AnswerPart
from mlx_server.gateway.dialects.responses import resource
from mlx_server.gateway.dialects.responses.output_items import Fields, OutputItems
from mlx_server.gateway.json_text import json_bytes
from vestal.web import server_sent_events
from vestal.web.http_error import HttpError

STREAM_END = server_sent_events.frame(b"[DONE]")
"""The end of a stream according to the specification. OpenAI's own server does not send it, and OpenAI's
clients ignore it."""


class Event(NamedTuple):
    """One event: its type, and the whole event as JSON."""

    type: str
    data: bytes

    def frame(self) -> bytes:
        """Return the event as a server-sent event."""
        return server_sent_events.frame(self.data, self.type)


class ResponseEvents:
    """Produces the events of one response, and keeps the response object up to date.

    `response` must be in progress. `items` builds the response's output items from the parts of the answer.
    The argument `now` of the method `part` is in seconds since 1970.
    """

    def __init__(self, response: resource.Resource, items: OutputItems) -> None:
        self._response = response
        self._items = items
        self._count = 0

    @property
    def response(self) -> resource.Resource:
        """Return the response object with the output so far."""
        return self._response | {"output": self._items.items}

    @property
    def id(self) -> str:
        return str(self._response["id"])

    @property
    def is_ended(self) -> bool:
        return self._response["status"] != "in_progress"

    def begin(self) -> list[Event]:
        """Return the events that come before any output."""
        return [self._with_response("response.created"), self.still_in_progress()]

    def still_in_progress(self) -> Event:
        """Return an event that changes nothing, and serves as a keep-alive for a waiting client."""
        return self._with_response("response.in_progress")

    def part(self, part: AnswerPart, now: int) -> list[Event]:
        """Return the events for a part of the answer. If `part.done` is set, also return the events that end
        the response.
        """
        events = self._numbered(self._items.add(part))
        if part.done:
            end = resource.ended(part.done, now)
            events += self._end(end, end["status"], f"response.{end['status']}")
        return events

    def failed(self, error: HttpError) -> list[Event]:
        """Return the events of a failure: one for the error, and then the events that end the response."""
        payload = resource.error_payload(error)
        # The specification nests the error; OpenAI's client expects the error's fields beside `type`.
        flat = {key: payload[key] for key in ("code", "message", "param")}
        return [
            self._event("error", flat | {"error": payload}),
            *self._end(resource.failed(error), "incomplete", "response.failed"),
        ]

    def cancelled(self) -> list[Event]:
        """Return the events that end a cancelled response."""
        return self._end({"status": "cancelled"}, "incomplete", "response.incomplete")

    def _end(self, fields: dict[str, Any], item_status: str, name: str) -> list[Event]:
        has_output = fields["status"] in ("completed", "incomplete")
        closing = self._items.end(item_status) if has_output else self._items.close(item_status)
        events = self._numbered(closing)
        self._response = self._response | fields
        return [*events, self._with_response(name)]

    def _with_response(self, name: str) -> Event:
        return self._event(name, {"response": self.response})

    def _numbered(self, events: Iterable[Fields]) -> list[Event]:
        return [self._event(name, fields) for name, fields in events]

    def _event(self, name: str, fields: dict[str, Any]) -> Event:
        number, self._count = self._count, self._count + 1
        return Event(name, json_bytes({"type": name, "sequence_number": number, **fields}))
