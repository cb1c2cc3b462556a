"""The parts of an answer, free of any dialect: what is said, thought and called. Pure but for waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from mlx_server import protocol
from mlx_server.gateway.requests.ticket import Ticket, TicketEvent


@dataclass(frozen=True)
class Call:
    """A tool call with the names that clients want: an id of its own, and its place among the answer's."""

    id: str
    index: int
    call: protocol.ToolCall


@dataclass(frozen=True)
class AnswerPart:
    """What one event brought, or many. `done` is None until the last."""

    text: str = ""
    thinking: str = ""
    calls: tuple[Call, ...] = ()
    chances: tuple[protocol.Logprobs, ...] = ()
    done: protocol.Done | None = None

    def __bool__(self) -> bool:
        """Whether there is something to tell the client."""
        return bool(self.text or self.thinking or self.calls)


class AnswerParts:
    """One ticket's events as parts. Logprobs of a token whose text is held back come with the next text."""

    def __init__(self, ticket: Ticket) -> None:
        self._id = ticket.id
        self._calls = 0
        self._chances: tuple[protocol.Logprobs, ...] = ()

    def part(self, event: TicketEvent) -> AnswerPart:
        assert isinstance(event, protocol.Token | protocol.Done)
        calls = tuple(self._named(call) for call in event.tool_calls or ())
        done = event if isinstance(event, protocol.Done) else None
        if isinstance(event, protocol.Token) and event.chances:
            self._chances = (*self._chances, event.chances)
        part = AnswerPart(event.text, event.thinking or "", calls, self._chances, done)
        if part or done:
            self._chances = ()
        return part

    def _named(self, call: protocol.ToolCall) -> Call:
        index, self._calls = self._calls, self._calls + 1
        return Call(f"call_{self._id}_{index}", index, call)


async def whole(ticket: Ticket) -> AnswerPart:
    """The whole answer; its `done` is there. Raises GatewayError, ClientDisconnected."""
    parts = AnswerParts(ticket)
    # `part` hands over held chances with the next text: between, it repeats them.
    found = [part async for event in ticket.events() if (part := parts.part(event)) or part.done]
    return AnswerPart(
        "".join(part.text for part in found),
        "".join(part.thinking for part in found),
        tuple(call for part in found for call in part.calls),
        # Tokens that a stop string took back are not in the text, and their chances are not told.
        tuple(chances for part in found if part for chances in part.chances),
        found[-1].done,
    )


class Tickets:
    """The tickets of one HTTP request that asked for several answers: they leave together."""

    def __init__(self, tickets: Sequence[Ticket]) -> None:
        self.each = tuple(tickets)

    @property
    def id(self) -> str:
        return self.each[0].id

    def cancel(self) -> None:
        for ticket in self.each:
            ticket.cancel()

    async def wholes(self) -> list[AnswerPart]:
        return [await whole(ticket) for ticket in self.each]

    async def parts(self, first: TicketEvent) -> AsyncIterator[tuple[int, AnswerPart]]:
        """All answers' parts as they come, with the answer's number; `first` is the first one's first."""
        readers = [AnswerParts(ticket) for ticket in self.each]
        async for at, event in self._events(first):
            if (part := readers[at].part(event)) or part.done:
                yield at, part

    async def _events(self, first: TicketEvent) -> AsyncIterator[tuple[int, TicketEvent]]:
        if len(self.each) == 1:
            async for event in self.each[0].events(first):
                yield 0, event
            return
        yield 0, first
        waiting = {
            asyncio.ensure_future(ticket.next()): at
            for at, ticket in enumerate(self.each)
            if at or not isinstance(first, protocol.Done)
        }
        try:
            while waiting:
                come, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in come:
                    at, event = waiting.pop(task), task.result()
                    if not isinstance(event, protocol.Done):
                        waiting[asyncio.ensure_future(self.each[at].next())] = at
                    yield at, event
        finally:
            for task in waiting:
                task.cancel()
