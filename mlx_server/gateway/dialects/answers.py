"""The answers to one HTTP request, read as a whole or part by part as they arrive."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import partial

from mlx_server import protocol
from mlx_server.gateway.answer_log import Silence
from mlx_server.gateway.dialects.answer_parts import AnswerAssembler, AnswerPart, joined
from mlx_server.gateway.errors import GatewayError
from mlx_server.gateway.kept_answers.history import Item, Record
from mlx_server.gateway.requests.ticket import ClientDisconnected, Ticket, TicketItem
from vestal.supervision import Clock, SystemClock

BEGIN_AFTER_S = 0.8
"""A stream begins with the first event, or this long after the request was submitted, so that its first byte
comes within a second. A failure before the stream begins is answered with its own HTTP status."""

READING_S = 1.2
"""How much longer a stream waits while an engine, to check the request, reads the tokenizer and template of a
model that is not in memory. Reading takes about this long for a large vocabulary."""

LOOK_S = 0.05

KEEP_ALIVE_S = 2.0
"""How often a stream checks whether any event has come. Its client waits for a frame at most twice as long.
httpx, on which the clients in Python are built, gives up after 5 s by default, and Node after 300 s."""


class Answers:
    """The answer to one HTTP request, or several answers if OpenAI's `n` or a list of prompts asks for them.

    Each of `tickets` is one request to the engine, and delivers the events of one answer. Answers are
    numbered from 0, in the order of `tickets`. The items (events, keep-alives, and the error that ends a
    request) of all answers are read in the order in which they arrived.

    A stream waits for its first event until about `begin_after_s` seconds after this object was created, and
    then begins without one (see `wait_left_s`). `earlier` are pairs (number of the answer, item): the items
    that a client received before the request was resumed. They are read again before any new item, so that
    the stream repeats the frames that the client got. `record` is called with the number of the answer and
    the item for each new item, when it arrives. Keep-alives are sent only while `needs_keep_alives` returns
    True. Every method that waits raises GatewayError if a request failed, and ClientDisconnected if the
    client is gone.
    """

    def __init__(
        self,
        tickets: Sequence[Ticket],
        clock: Clock | None = None,
        begin_after_s: float = BEGIN_AFTER_S,
        *,
        earlier: Iterable[tuple[int, Item]] = (),
        record: Record = lambda number, item: None,
        needs_keep_alives: Callable[[], bool] = lambda: True,
    ) -> None:
        self.tickets = tuple(tickets)
        self._clock = clock or SystemClock()
        self._begin_at_s = time.monotonic() + begin_after_s
        self._events_read = 0
        self._record = record
        self._needs_keep_alives = needs_keep_alives
        self._arrived: asyncio.Queue[tuple[int, TicketItem | Silence]] = asyncio.Queue()
        for number, item in earlier:
            self._arrived.put_nowait((number, item))
        for number, ticket in enumerate(self.tickets):
            ticket.deliver_to(partial(self._put, number))

    def _put(self, number: int, item: TicketItem | Silence) -> None:
        self._record(number, item)
        self._arrived.put_nowait((number, item))

    @property
    def id(self) -> str:
        """Return the id of the first of the requests to the engine, by which the client knows all the
        answers.
        """
        return self.tickets[0].public_id

    @property
    def prompt_tokens(self) -> int | None:
        """Return the length of the first prompt in tokens; None if the length is not known yet."""
        return self.tickets[0].prompt_tokens

    @property
    def has_begun(self) -> bool:
        """Return whether any of the requests has received an event or an error."""
        return any(ticket.has_begun for ticket in self.tickets)

    def cancel(self) -> None:
        """Cancel every request that has not ended."""
        for ticket in self.tickets:
            ticket.cancel()

    async def whole(self) -> list[tuple[AnswerPart, protocol.Done]]:
        """Wait until all answers have ended. Return each answer as one part, with its `Done` event, in the
        order of the requests. If a request fails, raise its error at once, without waiting for the other
        answers.
        """
        parts: list[list[AnswerPart]] = [[] for _ in self.tickets]
        async for number, part in self._parts():
            if part is not None:
                parts[number].append(part)
        answers = [joined(each) for each in parts]
        return [(answer, answer.done) for answer in answers if answer.done is not None]

    def wait_left_s(self) -> float:
        """Return for how many more seconds a stream may wait for its first event; 0 if it must begin now. The
        wait is extended while an engine reads a model in order to check a request, so this method must be
        called again when the returned time is over.
        """
        left_s = self._begin_at_s - time.monotonic()
        if left_s <= 0 and any(ticket.is_read_for for ticket in self.tickets):
            return max(0.0, min(LOOK_S, left_s + READING_S))
        return max(0.0, left_s)

    async def wait_for_start(self) -> None:
        """Wait until any answer has its first event, or until the time that a stream may wait for it has
        passed (see `wait_left_s`). If a request has failed by then, raise its error, so that the client gets
        the error's own HTTP status.
        """
        started = asyncio.Event()
        for ticket in self.tickets:
            ticket.call_at_first_event(started.set)
        while not started.is_set() and (left_s := self.wait_left_s()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await started.wait()
        for ticket in self.tickets:
            ticket.raise_failure()

    async def parts(self) -> AsyncIterator[tuple[int, AnswerPart] | None]:
        """Yield the parts that have content or are an end, as they arrive, each with the number of its
        answer. Yield None if no part has arrived for a while, so that the client can be sent a keep-alive.
        """
        watch = asyncio.ensure_future(self._add_keep_alives())
        try:
            async for number, part in self._parts():
                yield None if part is None else (number, part)
        finally:
            watch.cancel()

    def begin_with_keep_alive(self) -> None:
        """Begin the stream with a keep-alive, unless an event has arrived or no keep-alives are wanted."""
        if not self.has_begun and self._arrived.empty() and self._needs_keep_alives():
            self._put(0, Silence(0))

    async def _parts(self) -> AsyncIterator[tuple[int, AnswerPart | None]]:
        """Yield the parts of all answers, in the order in which they arrived, until all answers have ended.
        Each part is yielded as a pair: the number of the part's answer, and the part. A part without content
        is left out unless it ends its answer. A `Silence` among the arrived items stands for a keep-alive: it
        is yielded as a pair of the number of an answer that had not ended then, and None in place of a part.
        Raises the error of a request that failed, and ClientDisconnected if the client is gone.
        """
        assemblers = [AnswerAssembler(ticket.public_id) for ticket in self.tickets]
        unfinished = len(self.tickets)
        while unfinished:
            number, item = await self._arrived.get()
            if isinstance(item, GatewayError | ClientDisconnected):
                raise item
            if isinstance(item, Silence):
                yield number, None
                continue
            self._events_read += 1
            part = assemblers[number].part_of(item)
            if part.has_content or part.done:
                yield number, part
            unfinished -= part.done is not None

    async def _add_keep_alives(self) -> None:
        """Add a keep-alive (`Silence`) to the items whenever no event was read for KEEP_ALIVE_S seconds,
        until all requests have ended.
        """
        while True:
            before = self._events_read
            await self._clock.sleep(KEEP_ALIVE_S)
            running = next((n for n, ticket in enumerate(self.tickets) if not ticket.ended), None)
            if running is None:
                return
            is_silent = self._events_read == before and self._arrived.empty()
            if is_silent and self._needs_keep_alives():
                self._put(running, Silence(running))
