"""Find the earlier responses and items that a request refers to: in memory, or in the answer log."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec
from starlette.requests import HTTPConnection

from mlx_server.gateway.answer_log import (
    FORMAT_OF_REFERENCES,
    Accepted,
    Ended,
    NoLog,
    Record,
    Referenced,
)
from mlx_server.gateway.dialects.answers import Answers
from mlx_server.gateway.dialects.bodies import parse_body
from mlx_server.gateway.dialects.context import GatewayContext
from mlx_server.gateway.dialects.responses import DIALECT
from mlx_server.gateway.dialects.responses.input_items import InputItems, read_input, referenced_ids
from mlx_server.gateway.dialects.responses.offered_tools import offered_tools
from mlx_server.gateway.dialects.responses.references import (
    NO_ITEMS,
    References,
    input_ids,
    response_of_item,
)
from mlx_server.gateway.dialects.responses.resource import new_response
from mlx_server.gateway.dialects.responses.running import run_of
from mlx_server.gateway.dialects.responses.schema import CompactBody, CreateBody
from mlx_server.gateway.dialects.responses.stored import ResponseStore, StoredResponse, items_in
from mlx_server.gateway.errors import BadRequest, Unavailable
from mlx_server.gateway.json_text import json_bytes
from mlx_server.gateway.kept_answers.keeper import AnswerKeeper
from mlx_server.gateway.kept_answers.kept_answer import KeptAnswer, kept_answer_of
from mlx_server.gateway.kept_answers.running import gateway_stops
from mlx_server.gateway.kept_answers.runs import head_of, history_of, is_suspended
from mlx_server.gateway.requests.model_requests import GenerationRequest
from mlx_server.gateway.requests.sendable import sendable
from mlx_server.gateway.requests.ticket import ClientDisconnected, Ticket
from vestal.supervision import Clock
from vestal.web.http_error import HttpError

PATH = "/v1/responses"
ELSEWHERE = "Another machine continues this response, and has just been found; send the request again."
Find = Callable[[str], Awaitable[StoredResponse | None]]
"""A function that returns the response with an id, or None if there is none."""


class _Logged(NamedTuple):
    """The request for a response, all its records in the answer log, and its body."""

    head: Accepted
    records: Sequence[Record]
    body: CreateBody

    @property
    def has_ended(self) -> bool:
        return isinstance(self.records[-1], Ended)

    @property
    def is_left(self) -> bool:
        """Return whether the client has left the answer, so that nobody waits for the rest of it."""
        return is_suspended(self.records) and not (self.has_ended or self.body.background)

    @property
    def lacks_references(self) -> bool:
        """Return whether the records lack what the body refers to, because an earlier version or another
        machine has written them.
        """
        refers = bool(self.body.previous_response_id or referenced_ids(self.body.input))
        return refers and not self.head.referenced


class EarlierResponses:
    """Finds the responses of one gateway and of the gateways before it.

    `store` holds the latest responses in memory. Any other response is made again from its records in the
    answer log, without the engine. Only one response is made at a time, because requests may be large.

    If the client of a response disconnected before the end, the response is made again from the records that
    exist. It is shown as cancelled, as it was in the gateway that ran it. It is not added to `store`, because
    it may go on: its client may resume it, or a machine that cannot be reached at present may still be
    generating it, which the log does not show.
    """

    def __init__(self, context: GatewayContext, store: ResponseStore) -> None:
        self._context = context
        self._store = store
        self._finding: dict[str, asyncio.Task[StoredResponse | None]] = {}
        self._one_at_a_time = asyncio.Lock()

    async def references(
        self, body: CompactBody, client: HTTPConnection, find: Find | None = None
    ) -> References:
        """Return the earlier conversation and the stored items that the body refers to. Raises BadRequest if
        the response that the body continues is unknown or still running, and HttpError with status 503 if
        that response cannot be looked up at present.

        `find` finds a response by its id, by default in the store and in the answer log. If the answer to the
        request of `client` is kept, the references are written to the log with the request. A resumed request
        gets its references from the log, because the responses may have been deleted meanwhile.
        """
        kept = kept_answer_of(client.scope)
        if kept is not None and kept.referenced:
            return References.unpacked(kept.referenced)
        references = await self._look_up(body, find or self.find)
        if kept is not None and (parts := references.packed):
            kept.referenced = parts
            self._write_down(kept, parts)
        return references

    def _write_down(self, kept: KeptAnswer, parts: tuple[bytes, ...]) -> None:
        """Add `parts`, the references of a request in the form of `References.packed`, to the request's
        records in the answer log, if the records were begun without them. Do nothing if the request was
        accepted by a gateway of an earlier version (here or on another machine) that cannot read references
        in the records, or if this gateway no longer writes records for the request.
        """
        keeper = self._context.keeper
        can_be_read = kept.head.format >= FORMAT_OF_REFERENCES
        if keeper is not None and kept.is_written_down and can_be_read and not kept.is_detached:
            keeper.log.append(kept.id, Referenced(parts))

    async def _look_up(self, body: CompactBody, find: Find) -> References:
        previous = await self._previous(body.previous_response_id, find)
        items = await self._items(referenced_ids(body.input), find)
        return References(previous.conversation if previous else (), items)

    async def _previous(self, response_id: str | None, find: Find) -> StoredResponse | None:
        if not response_id:
            return None
        found = await find(response_id)
        shown = f"Previous response with id {response_id[:80]!r}"
        if found is None:
            message = f"{shown} not found: it was never stored here, was deleted, or is too old."
            raise BadRequest("previous_response_not_found", message, param="previous_response_id")
        if not found.run.is_finished:
            message = f"{shown} is still in progress; wait for its end."
            raise BadRequest("invalid_request", message, param="previous_response_id")
        return found

    async def _items(self, item_ids: Sequence[str], find: Find) -> bytes:
        """Return, as a JSON list, the stored items with the ids `item_ids`. An item that is not stored is
        left out. `find` finds a response by its id, for items of responses that are not in memory.
        """
        holders: dict[str, StoredResponse] = {}
        for item_id in item_ids:
            holder, response_id = self._store.holder(item_id), response_of_item(item_id)
            if holder is None and response_id is not None:
                holder = await find(response_id)
            if holder is not None:
                holders[item_id] = holder
        return await asyncio.to_thread(_items_in, holders) if holders else NO_ITEMS

    async def find(self, response_id: str) -> StoredResponse | None:
        """Return the stored response with this id; None if it was never stored, was deleted, or is too old.
        Raises HttpError with status 503 if it cannot be read at present.
        """
        stored = self._store.find(response_id)
        keeper, answer_id = self._context.keeper, response_id.removeprefix("resp_")
        if stored is not None or keeper is None or answer_id == response_id or not keeper.has(answer_id):
            return stored
        if (task := self._finding.get(answer_id)) is None:  # several clients may ask for it at once
            task = self._finding[answer_id] = asyncio.ensure_future(self._find(keeper, answer_id))
            task.add_done_callback(lambda done: self._found(answer_id, done))
        try:
            return await asyncio.shield(task)
        except HttpError as error:
            if error.status == 503:
                raise
            return None

    def _found(self, answer_id: str, task: asyncio.Task[StoredResponse | None]) -> None:
        self._finding.pop(answer_id, None)
        if not task.cancelled():
            task.exception()  # asyncio would log an error if all who asked have left

    async def _find(self, keeper: AnswerKeeper, answer_id: str) -> StoredResponse | None:
        """Return the response to a request that runs in this gateway or is in the answer log; None if the
        request is not for a stored response. Raises HttpError if the response cannot be made again.
        """
        answer = keeper.running_answer(answer_id)
        if answer is None or answer.client_left.is_set() or answer.has_all_events:
            if keeper.is_closed:
                raise gateway_stops()
            async with self._one_at_a_time:
                logged = await self._logged(keeper, answer_id)
                if logged is None:
                    return None
                if logged.has_ended and not logged.lacks_references:
                    return await self._made_again(logged)
            if logged.has_ended:  # the responses before it are made again first
                return await self._made_again(logged)
            if logged.is_left and await keeper.elsewhere(logged.records, only_looks=True) is None:
                return await self._made_again(logged)
            answer = await keeper.find(answer_id)
        if not answer.rendering.is_frozen:
            await answer.is_prepared.wait()
        stored = self._store.find(f"resp_{answer_id}")
        if stored is None and answer.failure is not None:
            raise answer.failure
        if stored is None and answer.rendering.is_frozen:
            raise Unavailable("engine_unavailable", ELSEWHERE, retry_after_s=1)
        return stored

    async def _logged(self, keeper: AnswerKeeper, answer_id: str) -> _Logged | None:
        """Return the request for a stored response, from its records in the answer log; None if there is no
        such request. Raises HttpError if its body cannot be read.
        """
        records = await keeper.log.records(answer_id) or ()
        head = head_of(records)
        if head is None or head.path != PATH:
            return None
        body = await asyncio.to_thread(parse_body, [head.body], CreateBody)
        return _Logged(head, records, body) if body.wants_storing else None

    async def _made_again(self, logged: _Logged) -> StoredResponse:
        """Make a response again from its records, and add it to the store if it has ended. Raises HttpError
        if it continues a response that is unknown.
        """
        head, body, clock = logged.head, logged.body, self._context.clock
        parts = head.referenced
        references = References.unpacked(parts) if parts else await self._look_up(body, self.find)
        read, items = await asyncio.to_thread(_input_of, head.id, body, references)
        offered = offered_tools(body.tools, body.tool_choice)
        response = new_response(body, offered, f"resp_{head.id}", int(head.created_s), is_stored=True)
        run = run_of(body, offered, _answers_of(logged, clock), response, clock)
        stored = StoredResponse(run, references.earlier, items, read.ids)
        run.start()
        await run.wait_for_end()
        if (newer := self._store.find(stored.id)) is not None:  # a client has had it resumed meanwhile
            return newer
        if logged.has_ended:
            self._store.add(stored)
            self._store.ended(stored)
        return stored


def _items_in(holders: Mapping[str, StoredResponse]) -> bytes:
    found = (holder.item(item_id) for item_id, holder in holders.items())
    return json_bytes([item for item in found if item is not None])


def _input_of(answer_id: str, body: CreateBody, references: References) -> tuple[InputItems, bytes]:
    """Return the items of the body's input, and the same items as a JSON list."""
    read = read_input(body.input, items_in(references.earlier), input_ids(answer_id), references.item)
    return read, json_bytes(read.items)


def _answers_of(logged: _Logged, clock: Clock) -> Answers:
    """Return the answer to a request, read from the request's records. If the records do not contain the end
    of the answer, the answer ends with ClientDisconnected. Nothing is sent to the engine or written to the
    log.
    """
    history = history_of(logged.records)
    head = msgspec.structs.replace(logged.head, body=b"")
    kept = KeptAnswer(head, NoLog(), lambda over: None, history, was_accepted=True)
    resumed = kept.resumed(0)
    unsent = sendable(GenerationRequest(model=logged.body.model, kind="chat"))
    ticket = Ticket(resumed.id, unsent, DIALECT, clock.now(), lambda cancelled: None)
    ticket.resume(resumed)
    if not ticket.ended:
        ticket.outcome = "cancelled"
        ticket.put(ClientDisconnected())
    return Answers([ticket], clock, earlier=history)
