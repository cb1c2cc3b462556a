"""Run one response: read its answer, store its events, and let any number of clients follow them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable

from mlx_server.gateway.dialects.answer_parts import AnswerPart, joined
from mlx_server.gateway.dialects.answers import Answers
from mlx_server.gateway.dialects.responses.events import STREAM_END, Event, ResponseEvents
from mlx_server.gateway.dialects.responses.offered_tools import OfferedTools
from mlx_server.gateway.dialects.responses.output_items import OutputItems, OutputOptions
from mlx_server.gateway.dialects.responses.resource import Resource
from mlx_server.gateway.dialects.responses.schema import ENCRYPTED_REASONING, CreateBody
from mlx_server.gateway.errors import GatewayError, ServerFault
from mlx_server.gateway.requests.ticket import ClientDisconnected
from vestal.supervision import Clock

log = logging.getLogger(__name__)

SILENCES_TO_REPORT = 3
"""At every third silence, `response.in_progress` is sent as a keep-alive. It is not sent more often because
it contains the whole response, and is stored. A comment would not do as a keep-alive, because Codex ignores
comments, and gives up after 300 s without an event."""


class ResponseRun:
    """One response, from the submission of its request to its end. `answers` delivers the parts of the answer
    as the engine generates them, and `events` makes the response's events from these parts. `events` must not
    have produced any event yet.

    With `is_streamed`, each part of the answer produces events as it arrives. Otherwise, all parts are joined
    when the answer is complete, and produce events only once, so that fewer events are stored.
    """

    def __init__(
        self,
        answers: Answers,
        events: ResponseEvents,
        clock: Clock,
        *,
        is_streamed: bool,
    ) -> None:
        self.log: list[Event] = []
        self.events = events
        self.error: GatewayError | None = None
        self._answers = answers
        self._clock = clock
        self._is_streamed = is_streamed
        self._has_output = False
        self._silences = 0
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def id(self) -> str:
        """Return the id of the request, which the header x-request-id contains."""
        return self._answers.id

    @property
    def is_finished(self) -> bool:
        return self.events.is_ended

    def start(self, on_end: Callable[[], None] = lambda: None) -> None:
        """Start to read the answer. `on_end` is called once the last event is stored."""
        self._append(self.events.begin())
        self._task = asyncio.ensure_future(self._run(on_end))

    def cancel(self) -> None:
        """Cancel the response. This does nothing if the response has ended."""
        self._answers.cancel()

    @property
    def refusal(self) -> GatewayError | None:
        """Return the error if the response failed before any output, so that the client can receive an HTTP
        error status; else None.
        """
        return None if self._has_output else self.error

    async def wait_for_output(self) -> None:
        """Wait until the response has its first output or has ended, but not longer than a stream may wait
        before it begins (see `Answers.wait_left_s`). An error before the first output is not raised here;
        afterwards, the property `refusal` holds it.
        """
        while not self._has_output and not self.is_finished and (left_s := self._answers.wait_left_s()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._changed.wait()

    async def wait_for_end(self) -> None:
        while not self.is_finished:
            await self._changed.wait()

    async def follow(self, after: int = -1) -> AsyncIterator[Event]:
        """Yield the stored and coming events whose number is above `after`, up to the last event of the
        response.
        """
        position = after + 1
        while True:
            while position < len(self.log):
                yield self.log[position]
                position += 1
            if self.is_finished:
                return
            await self._changed.wait()

    async def _run(self, on_end: Callable[[], None]) -> None:
        try:
            await self._read()
        except ClientDisconnected:
            self._append(self.events.cancelled())
        except GatewayError as error:
            self._fail(error)
        except Exception as error:  # a bug in a renderer: the client reads an error instead of a cut line
            log.exception("Response %s could not be written", self.events.id)
            self.cancel()
            cause = f"The gateway could not write this answer ({type(error).__name__}); its log has more."
            self._fail(ServerFault("internal_error", cause))
        finally:
            on_end()

    def _fail(self, error: GatewayError) -> None:
        self.error = error
        self._append(self.events.failed(error))

    async def _read(self) -> None:
        parts: list[AnswerPart] = []
        async for arrived in self._answers.parts():
            if arrived is None:
                self._report_silence()
                continue
            if self._is_streamed:
                self._add(arrived[1])
            else:
                parts.append(arrived[1])
        if parts:
            self._add(joined(parts))

    def _add(self, part: AnswerPart) -> None:
        self._has_output = True
        self._silences = 0
        self._append(self.events.part(part, int(self._clock.wall())))

    def _report_silence(self) -> None:
        """Count a period of KEEP_ALIVE_S seconds (see `answers`) in which the engine sent nothing. If the
        response is streamed, the 1st, 4th, 7th, … such period since the last output adds the event
        `response.in_progress`, as a keep-alive.
        """
        if self._is_streamed and self._silences % SILENCES_TO_REPORT == 0:
            self._append([self.events.still_in_progress()])
        self._silences += 1

    def _append(self, events: list[Event]) -> None:
        self.log += events
        self._changed.set()
        self._changed = asyncio.Event()


def run_of(
    body: CreateBody, offered: OfferedTools, answers: Answers, response: Resource, clock: Clock
) -> ResponseRun:
    """Return a run, not started yet, that makes the response to `body` from `answers`. `response` is the
    object of the response in progress. `offered` are the tools that the model is offered.
    """
    options = OutputOptions(
        offered.allowed,
        body.most_calls,
        body.includes(ENCRYPTED_REASONING),
        offered.custom,
        generates=body.generate is not False,
    )
    events = ResponseEvents(response, OutputItems(response["id"].removeprefix("resp_"), options))
    return ResponseRun(answers, events, clock, is_streamed=bool(body.stream or body.background))


class Following:
    """Yields the events of a run to one client, as server-sent events, until the run ends or `cancel` is
    called. The first event is the one after number `after`.

    If `owns_run` is True, `cancel` also cancels the run. It is False for a response that runs in the
    background, and for a client that follows a stored response.
    """

    def __init__(self, run: ResponseRun, after: int = -1, *, owns_run: bool = False) -> None:
        self.id = run.id
        self._run = run
        self._after = after
        self._owns_run = owns_run
        self._is_cancelled = False

    def cancel(self) -> None:
        """Yield no more frames. If `owns_run`, cancel the run too."""
        self._is_cancelled = True
        if self._owns_run:
            self._run.cancel()

    async def frames(self) -> AsyncIterator[bytes]:
        async for event in self._run.follow(self._after):
            if self._is_cancelled:
                return
            yield event.frame()
        yield STREAM_END
