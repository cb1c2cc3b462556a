"""Runs of responses and their store: who follows a run, what fills silence, how long it is stored."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from mlx_server import protocol
from mlx_server.gateway.dialects.answers import Answers
from mlx_server.gateway.dialects.bodies import validated
from mlx_server.gateway.dialects.responses.events import ResponseEvents
from mlx_server.gateway.dialects.responses.offered_tools import offered_tools
from mlx_server.gateway.dialects.responses.output_items import OutputItems, OutputOptions
from mlx_server.gateway.dialects.responses.resource import new_response
from mlx_server.gateway.dialects.responses.running import Following, ResponseRun
from mlx_server.gateway.dialects.responses.schema import CreateBody
from mlx_server.gateway.dialects.responses.stored import MemoryResponseStore, StoredResponse, items_in
from mlx_server.gateway.errors import BadRequest, ServerFault
from mlx_server.gateway.json_text import json_bytes
from mlx_server.gateway.requests.model_requests import GenerationRequest
from mlx_server.gateway.requests.sendable import sendable
from mlx_server.gateway.requests.ticket import ClientDisconnected, Ticket
from vestal.supervision import FakeClock

USAGE = protocol.Usage(7, 2)


def a_ticket() -> Ticket:
    def cancel(ticket: Ticket) -> None:
        ticket.outcome = "cancelled"
        ticket.put(ClientDisconnected())

    return Ticket("r", sendable(GenerationRequest("m", "chat")), "responses", 0.0, cancel)


def a_run(ticket: Ticket, clock: FakeClock, number: int = 1, *, is_streamed: bool = True) -> ResponseRun:
    body = validated({"model": "m", "input": "hello"}, CreateBody)
    response = new_response(body, offered_tools(None, None), f"resp_{number}", 0, is_stored=True)
    events = ResponseEvents(response, OutputItems(str(number), OutputOptions()))
    return ResponseRun(Answers([ticket], clock), events, clock, is_streamed=is_streamed)


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def say(ticket: Ticket, *texts: str) -> None:
    for index, text in enumerate(texts):
        ticket.put(protocol.Token("r", index, text, index))


def end(ticket: Ticket) -> None:
    ticket.outcome = "done"
    ticket.put(protocol.Done("r", "stop", USAGE))


async def test_response_run_can_be_followed_from_any_event_by_any_number_of_clients():
    ticket = a_ticket()
    run = a_run(ticket, FakeClock())
    run.start()

    async def followed(after: int) -> list[int]:
        return [json.loads(event.data)["sequence_number"] async for event in run.follow(after)]

    clients = [asyncio.ensure_future(followed(after)) for after in (-1, 3, 50)]
    await settle()
    say(ticket, "a", "b")
    end(ticket)
    whole, rest, none = await asyncio.gather(*clients)
    assert whole == list(range(10))
    assert rest == list(range(4, 10))
    assert none == []


async def test_client_waiting_for_a_response_is_sent_an_event_at_least_every_ten_seconds():
    """Codex ignores comments, and hangs up after 300 s without an event."""
    clock, ticket = FakeClock(), a_ticket()
    run = a_run(ticket, clock)
    run.start()
    before = len(run.log)
    await clock.run_for(60)
    repeated = run.log[before:]
    assert 60 / 10 <= len(repeated) <= 60 / 5
    assert {event.type for event in repeated} == {"response.in_progress"}
    end(ticket)
    await run.wait_for_end()
    count = len(run.log)
    await clock.run_for(60)
    assert len(run.log) == count


async def test_response_stream_with_steady_tokens_has_no_additional_in_progress_events():
    clock, ticket = FakeClock(), a_ticket()
    run = a_run(ticket, clock)
    run.start()
    for index in range(20):
        ticket.put(protocol.Token("r", index, "x", index))
        await clock.run_for(1)
    assert [event.type for event in run.log].count("response.in_progress") == 1


async def test_response_run_that_fails_before_its_first_output_is_refused_with_the_http_status_of_its_error():
    ticket = a_ticket()
    run = a_run(ticket, FakeClock())
    run.start()
    ticket.put(BadRequest("invalid_request", "The schema is wrong."))
    await run.wait_for_output()
    assert run.refusal is not None
    assert run.refusal.status == 400


async def test_response_run_that_fails_after_output_reports_the_failure_only_in_its_events():
    ticket = a_ticket()
    run = a_run(ticket, FakeClock())
    run.start()
    say(ticket, "a")
    ticket.put(ServerFault("engine_crashed", "The engine crashed."))
    await run.wait_for_end()
    assert run.refusal is None
    assert run.error is not None
    assert [event.type for event in run.log][-1] == "response.failed"


async def test_response_run_that_is_not_streamed_has_one_delta_event_for_the_whole_text():
    ticket = a_ticket()
    run = a_run(ticket, FakeClock(), is_streamed=False)
    run.start()
    say(ticket, *"abcdef")
    end(ticket)
    await run.wait_for_end()
    assert [event.type for event in run.log].count("response.output_text.delta") == 1
    assert run.events.response["output"][0]["content"][0]["text"] == "abcdef"


async def test_client_that_disconnects_cancels_only_its_own_response_run():
    own, other = a_ticket(), a_ticket()
    runs = [a_run(ticket, FakeClock()) for ticket in (own, other)]
    for run in runs:
        run.start()
    Following(runs[0], owns_run=True).cancel()
    Following(runs[1]).cancel()
    await runs[0].wait_for_end()
    assert runs[0].events.response["status"] == "cancelled"
    assert (own.outcome, other.outcome) == ("cancelled", None)
    runs[1].cancel()


async def test_response_stream_whose_renderer_fails_ends_with_an_error_and_cancels_the_request():
    ticket = a_ticket()
    run = a_run(ticket, FakeClock())

    def broken(*_: object) -> list:
        raise KeyError("a bug")

    run.events.part = broken  # type: ignore[method-assign,assignment]
    run.start()
    say(ticket, "a")
    await run.wait_for_end()
    assert ticket.outcome == "cancelled"
    assert run.error is not None
    assert run.error.code == "internal_error"


async def stored_response(clock: FakeClock, number: int, text: str = "x") -> StoredResponse:
    ticket = a_ticket()
    run = a_run(ticket, clock, number)
    run.start()
    say(ticket, text)
    end(ticket)
    await run.wait_for_end()
    item: dict[str, Any] = {"id": f"msg_in_{number}", "type": "message", "role": "user", "content": []}
    return StoredResponse(run, (), json_bytes([item]), (item["id"],))


async def test_response_store_drops_expired_responses_and_their_items():
    clock = FakeClock()
    store = MemoryResponseStore(60, clock.now)
    response = await stored_response(clock, 1)
    store.add(response)
    store.ended(response)
    clock.advance(59)
    assert store.find("resp_1") is response
    assert store.holder("msg_in_1") is store.holder("msg_1_0") is response
    clock.advance(2)
    assert store.find("resp_1") is store.holder("msg_in_1") is None


async def test_response_store_with_keep_s_zero_stores_nothing():
    clock = FakeClock()
    store = MemoryResponseStore(0, clock.now)
    response = await stored_response(clock, 1)
    store.add(response)
    store.ended(response)
    assert not store.keeps_any
    assert store.find("resp_1") is None


async def test_response_store_beyond_its_byte_limit_drops_the_oldest_but_no_running_response():
    clock = FakeClock()
    first = await stored_response(clock, 1)
    store = MemoryResponseStore(60, clock.now, max_bytes=3 * (first.size_bytes + len(first.items)))
    running = StoredResponse(a_run(a_ticket(), clock, 99), (), b" " * 10**6)
    store.add(running)
    for response in [first, *[await stored_response(clock, number) for number in range(2, 6)]]:
        store.add(response)
        store.ended(response)
    kept = [number for number in (1, 2, 3, 4, 5, 99) if store.find(f"resp_{number}")]
    assert kept == [3, 4, 5, 99]


async def test_response_store_counts_content_shared_by_continued_responses_once():
    """A picture in a first turn stays in memory for each later turn, although the first is dropped."""
    clock = FakeClock()
    picture = b" " * 10**6
    store = MemoryResponseStore(60, clock.now, max_bytes=int(2.5 * 10**6))
    for conversation in range(4):
        first, second = [await stored_response(clock, 2 * conversation + turn) for turn in (0, 1)]
        first.items = picture + str(conversation).encode()
        second.earlier = first.lists
        for response in (first, second):
            store.add(response)
            store.ended(response)
    kept = [number for number in range(8) if store.find(f"resp_{number}")]
    assert kept == [4, 5, 6, 7], "two pictures fit, each with both of its turns"
    for number in kept:
        store.remove(f"resp_{number}")
    assert store.size_bytes == 0


async def test_response_store_holds_equal_lists_of_two_responses_once():
    """Each response that is read from the answer log brings its own copy of the conversation before it."""
    clock = FakeClock()
    store = MemoryResponseStore(60, clock.now)
    responses = [await stored_response(clock, number) for number in (1, 2)]
    for response in responses:
        response.earlier = (b" " * 10**6 + str(10**9).encode(),)
        store.add(response)
        store.ended(response)
    assert responses[0].earlier[0] is responses[1].earlier[0]
    assert store.size_bytes < 1.1 * 10**6
    for response in responses:
        store.remove(response.id)
    assert store.size_bytes == 0


async def test_conversation_of_a_stored_response_has_its_input_before_its_output():
    clock = FakeClock()
    response = await stored_response(clock, 1)
    assert [item["id"] for item in items_in(response.conversation)] == ["msg_in_1", "msg_1_0"]


async def run_again(
    store: MemoryResponseStore, clock: FakeClock, number: int = 1, items: bytes = b"[]"
) -> tuple[Ticket, StoredResponse]:
    """Start a response as `Responses.create` does, for example for a client that reads its answer again."""
    ticket = a_ticket()
    run = a_run(ticket, clock, number)
    response = StoredResponse(run, items=items)
    store.add(response)
    run.start(lambda: store.ended(response))
    say(ticket, "a" * 1000)
    await settle()
    return ticket, response


async def test_response_store_counts_a_response_only_once_although_it_is_run_again():
    """Each time that a response was read again, its bytes were added for ever. After 32 MiB of them, every
    response was dropped when it ended.
    """
    clock = FakeClock()
    store = MemoryResponseStore(3600, clock.now, max_bytes=40_000)
    sizes_bytes = set()
    for _ in range(20):
        ticket, _ = await run_again(store, clock)
        end(ticket)
        await settle()
        sizes_bytes.add(store.size_bytes)
    assert len(sizes_bytes) == 1
    assert store.find("resp_1") is not None
    store.remove("resp_1")
    assert store.size_bytes == 0


async def test_response_removed_while_it_is_run_again_is_not_counted_or_stored_when_it_ends():
    clock = FakeClock()
    store = MemoryResponseStore(3600, clock.now)
    for number in (1, 2):
        ticket, _ = await run_again(store, clock, items=b'[{"id":"x%d"}]' % number)
        if number == 1:
            end(ticket)
            await settle()
    store.remove("resp_1")
    end(ticket)
    await settle()
    assert (store.size_bytes, store.find("resp_1")) == (0, None)


async def test_end_of_a_response_that_a_newer_run_has_replaced_changes_nothing_in_the_store():
    clock = FakeClock()
    store = MemoryResponseStore(3600, clock.now)
    older, _ = await run_again(store, clock)
    newer, response = await run_again(store, clock)
    end(older)
    await settle()
    assert (store.size_bytes, response.ended_at) == (0, None)
    end(newer)
    await settle()
    assert store.find("resp_1") is response
    assert store.size_bytes == response.size_bytes + len(response.items)
