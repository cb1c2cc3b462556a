"""The answers to one HTTP request: read as a whole, or part by part as they arrive."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence

from mlx_server import protocol
from mlx_server.gateway.dialects.answer_parts import AnswerAssembler, AnswerPart, joined
from mlx_server.gateway.requests.ticket import Silence, Ticket, TicketEvent
from vestal.supervision import Clock, SystemClock

BEGIN_AFTER_S = 0.8
"""A stream begins with the first event, and at the latest so long after the request was submitted, so that
its first byte comes within a second. A failure before that is answered with its own HTTP status."""

READING_S = 1.2
"""How much longer a stream waits while an engine reads the tokenizer and template of a model that is not in
memory, to check the request: about as long as that takes for a large vocabulary."""

LOOK_S = 0.05

SILENCE_S = 2.0
"""How often a stream looks whether anything has come. Its client hears nothing for twice that at most: httpx,
on which the clients in Python are built, gives up after 5 s by default, and Node after 300 s."""


class Answers:
    """One answer, or several where OpenAI's `n` or a list of prompts asks for them. They end together.

    Every method that waits raises GatewayError where a request failed, and ClientDisconnected.
    """

    def __init__(
        self, tickets: Sequence[Ticket], clock: Clock | None = None, begin_after_s: float = BEGIN_AFTER_S
    ) -> None:
        self.tickets = tuple(tickets)
        self._clock = clock or SystemClock()
        self._begin_at_s = time.monotonic() + begin_after_s
        self._events_read = 0

    @property
    def id(self) -> str:
        """Return the id of the first request, by which the client knows all of them."""
        return self.tickets[0].id

    @property
    def prompt_tokens(self) -> int | None:
        """Return the length of the first prompt in tokens; None where it is not known yet."""
        return self.tickets[0].prompt_tokens

    @property
    def has_begun(self) -> bool:
        """Return whether any event of any answer has come."""
        return any(ticket.has_begun for ticket in self.tickets)

    def cancel(self) -> None:
        """Cancel every request that has not ended."""
        for ticket in self.tickets:
            ticket.cancel()

    async def whole(self) -> list[tuple[AnswerPart, protocol.Done]]:
        """Return each complete answer as one part, with its `Done` event, once all answers have ended."""
        return [await self._whole(ticket) for ticket in self.tickets]

    async def _whole(self, ticket: Ticket) -> tuple[AnswerPart, protocol.Done]:
        assembler = AnswerAssembler(ticket.id)
        parts = [
            part
            async for event in ticket.events()
            if (part := assembler.part_of(event)).has_content or part.done
        ]
        answer = joined(parts)
        assert answer.done is not None
        return answer, answer.done

    def wait_left_s(self) -> float:
        """Return for how many seconds a stream may wait for its first event before this is asked again."""
        left_s = self._begin_at_s - time.monotonic()
        if left_s <= 0 and any(ticket.is_read_for for ticket in self.tickets):
            return max(0.0, min(LOOK_S, left_s + READING_S))
        return max(0.0, left_s)

    async def wait_for_start(self) -> None:
        """Return at the first event of any answer, or when a stream must begin without one.

        Raises the error of a request that has failed by then.
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
        """Yield the parts that have content or are an end, as they arrive, with the number of the answer.

        Yield None where none has arrived for a while: the client is to hear that its request is alive.
        """
        assemblers = [AnswerAssembler(ticket.id) for ticket in self.tickets]
        watch = asyncio.ensure_future(self._mark_silence())
        try:
            async for index, event in self._events():
                if isinstance(event, Silence):
                    yield None
                    continue
                self._events_read += 1
                part = assemblers[index].part_of(event)
                if part.has_content or part.done:
                    yield index, part
        finally:
            watch.cancel()

    async def _mark_silence(self) -> None:
        """Mark a silence, from time to time, where no event was read since the last look."""
        while True:
            before = self._events_read
            await self._clock.sleep(SILENCE_S)
            running = next((ticket for ticket in self.tickets if not ticket.ended), None)
            if running is None:
                return
            if self._events_read == before:
                running.mark_silence()

    async def _events(self) -> AsyncIterator[tuple[int, TicketEvent | Silence]]:
        if len(self.tickets) == 1:
            async for event in self.tickets[0].events():
                yield 0, event
            return
        waiting = {asyncio.ensure_future(ticket.next()): index for index, ticket in enumerate(self.tickets)}
        try:
            while waiting:
                arrived, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in arrived:
                    index, event = waiting.pop(task), task.result()
                    if not isinstance(event, protocol.Done):
                        waiting[asyncio.ensure_future(self.tickets[index].next())] = index
                    yield index, event
        finally:
            for task in waiting:
                task.cancel()
