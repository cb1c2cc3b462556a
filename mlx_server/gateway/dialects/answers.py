"""The answers to one HTTP request: read as a whole, or part by part as they arrive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from mlx_server import protocol
from mlx_server.gateway.dialects.answer_parts import AnswerAssembler, AnswerPart, joined
from mlx_server.gateway.requests.ticket import Ticket, TicketEvent


class Answers:
    """One answer, or several where OpenAI's `n` or a list of prompts asks for them. They end together.

    Every method that waits raises GatewayError where a request failed, and ClientDisconnected.
    """

    def __init__(self, tickets: Sequence[Ticket]) -> None:
        self.tickets = tuple(tickets)

    @property
    def id(self) -> str:
        """Return the id of the first request, by which the client knows all of them."""
        return self.tickets[0].id

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

    async def first_event(self) -> TicketEvent:
        """Return the first event of the first answer, which the caller passes to `parts`."""
        return await self.tickets[0].next()

    async def parts(self, first: TicketEvent) -> AsyncIterator[tuple[int, AnswerPart]]:
        """Yield the parts that have content or are an end, as they arrive, with the number of the answer."""
        assemblers = [AnswerAssembler(ticket.id) for ticket in self.tickets]
        async for index, event in self._events(first):
            part = assemblers[index].part_of(event)
            if part.has_content or part.done:
                yield index, part

    async def _events(self, first: TicketEvent) -> AsyncIterator[tuple[int, TicketEvent]]:
        if len(self.tickets) == 1:
            async for event in self.tickets[0].events(first):
                yield 0, event
            return
        yield 0, first
        waiting = {
            asyncio.ensure_future(ticket.next()): index
            for index, ticket in enumerate(self.tickets)
            if index > 0 or not isinstance(first, protocol.Done)
        }
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
