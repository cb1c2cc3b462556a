"""The events of one response, numbered from its creation to its end, and their two wire forms. Pure."""

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
"""The specification ends a stream so. OpenAI's own server does not, and its clients read over it."""


class Event(NamedTuple):
    """One event: its type, and the whole event as JSON."""

    type: str
    data: bytes

    def frame(self) -> bytes:
        """Return the event as a server-sent event."""
        return server_sent_events.frame(self.data, self.type)


class ResponseEvents:
    """Makes the events of one response, and keeps the response object up to date.

    `response` is in progress when it is given. Times are in seconds since the epoch.
    """

    def __init__(self, response: resource.Resource, items: OutputItems) -> None:
        self._response = response
        self._items = items
        self._count = 0

    @property
    def response(self) -> resource.Resource:
        """Return the response object as it is now."""
        return self._response | {"output": self._items.items}

    @property
    def id(self) -> str:
        return str(self._response["id"])

    @property
    def is_ended(self) -> bool:
        return self._response["status"] != "in_progress"

    def begin(self) -> list[Event]:
        """Return the events before any output."""
        return [self._with_response("response.created"), self.still_in_progress()]

    def still_in_progress(self) -> Event:
        """Return an event that changes nothing: it keeps the connection of a waiting client alive."""
        return self._with_response("response.in_progress")

    def part(self, part: AnswerPart, now: int) -> list[Event]:
        """Return the events for a part of the answer; if `part.done`, also those of the end."""
        events = self._numbered(self._items.add(part))
        if part.done:
            end = resource.ended(part.done, now)
            events += self._end(end, end["status"], f"response.{end['status']}")
        return events

    def failed(self, error: HttpError) -> list[Event]:
        """Return the events of a failure: the error by itself, and the end of the response."""
        payload = resource.error_payload(error)
        # The specification nests the error, and OpenAI's client has its fields next to the type.
        flat = {key: payload[key] for key in ("code", "message", "param")}
        return [
            self._event("error", flat | {"error": payload}),
            *self._end(resource.failed(error), "incomplete", "response.failed"),
        ]

    def cancelled(self) -> list[Event]:
        """Return the events of a response that was cancelled."""
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
