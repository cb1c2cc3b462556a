"""A stored response is available after its gateway was replaced, and an accepted one is finished."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mlx_server import protocol
from mlx_server.gateway.answer_log import FORMAT, Accepted, Event, Left, Referenced
from mlx_server.gateway.answer_log.file_names import FileName
from mlx_server.gateway.answer_log.records import OLDEST_FORMAT, pack_record, read_records
from mlx_server.gateway.dialects.responses.earlier_responses import EarlierResponses
from mlx_server.gateway.dialects.responses.stored import MemoryResponseStore
from tests.unit.mlx_server.gateway.dialects.responses.replaced_gateways import USAGE, Gateway, Gateways
from tests.unit.mlx_server.gateway.kept_answers.kept_routes import until

TURNS = [("user", "one"), ("assistant", "ok"), ("user", "two"), ("assistant", "ok")]
FORTY_MINUTES_S = 2400.0


@pytest.fixture
def gateways(tmp_path: Path) -> Gateways:
    return Gateways(tmp_path)


async def two_turns(gateway: Gateway) -> tuple[dict[str, Any], dict[str, Any]]:
    first = await gateway.response("one")
    return first, await gateway.response("two", previous_response_id=first["id"])


def reference(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "item_reference", "id": item["id"]}


async def test_response_whose_first_turn_has_expired_is_continued_by_the_next_gateway(gateways):
    """Only the client's bodies were in the log, so that the last turn needed each turn before it: a
    conversation that was over an hour old was lost whole when its gateway was replaced.
    """
    async with gateways.next() as gateway:
        first = await gateway.response("one")
        gateways.clock.ahead_s += FORTY_MINUTES_S
        second = await gateway.response("two", previous_response_id=first["id"])
        gateways.clock.ahead_s += FORTY_MINUTES_S
        gateway.keeper.sweep()
        assert not gateway.keeper.is_logged(first["id"].removeprefix("resp_"))
    async with gateways.next() as gateway:
        status, shown = await gateway.get(f"/v1/responses/{second['id']}")
        assert (status, shown["output"], shown["usage"]) == (200, second["output"], second["usage"])
        await gateway.response("three", previous_response_id=second["id"])
        assert gateway.engine.prompts == [[*TURNS, ("user", "three")]]


async def test_response_whose_earlier_turn_was_deleted_is_continued_by_the_next_gateway(gateways):
    async with gateways.next() as gateway:
        first, second = await two_turns(gateway)
        assert (await gateway.http.delete(f"/v1/responses/{first['id']}")).status_code == 200
    async with gateways.next() as gateway:
        await gateway.response("three", previous_response_id=second["id"])
        assert gateway.engine.prompts == [[*TURNS, ("user", "three")]]
        assert (await gateway.get(f"/v1/responses/{first['id']}"))[0] == 404


@pytest.mark.parametrize("path", ["", "/compact"])
@pytest.mark.parametrize("refers_by", ["previous_response_id", "item_reference"])
async def test_running_request_whose_referenced_response_was_deleted_is_finished_by_the_next_gateway(
    gateways, path, refers_by
):
    """The next gateway answered it with 400 or 404: an accepted request was lost."""
    async with gateways.next() as gateway:
        first = await gateway.response("one")
        body: dict[str, Any] = {"content": "two", "previous_response_id": first["id"]}
        if refers_by == "item_reference":
            user = {"role": "user", "content": "two"}
            body = {"content": [{"role": "user", "content": "one"}, reference(first["output"][0]), user]}
        answer_id = await gateway.begin(body.pop("content"), path, **body)
        assert (await gateway.http.delete(f"/v1/responses/{first['id']}")).status_code == 200
    async with gateways.next() as gateway:
        status, shown = await gateway.get(f"/v1/streams/{answer_id}")
        assert status == 200, shown
        assert gateway.engine.prompts[0][:3] == TURNS[:3]


@pytest.mark.parametrize("path", ["", "/input_tokens", "/compact"])
@pytest.mark.parametrize("refers_by", ["previous_response_id", "item_reference"])
async def test_stored_response_of_the_previous_gateway_can_be_referenced_on_each_route(
    gateways, path, refers_by
):
    """Only `previous_response_id` of POST /v1/responses was looked up in the answer log."""
    async with gateways.next() as gateway:
        _, second = await two_turns(gateway)
    async with gateways.next() as gateway:
        if refers_by == "previous_response_id":
            status, shown = await gateway.ask("three", path, previous_response_id=second["id"])
        else:
            status, shown = await gateway.ask([reference(second["output"][0])], path)
        assert status == 200, shown
        assert TURNS[-1] in gateway.engine.prompts[0]


async def test_input_item_of_a_response_stored_by_the_previous_gateway_can_be_referenced(gateways):
    async with gateways.next() as gateway:
        first = await gateway.response("one")
        _, listed = await gateway.get(f"/v1/responses/{first['id']}/input_items")
    async with gateways.next() as gateway:
        await gateway.response([reference(listed["data"][0])])
        assert gateway.engine.prompts == [[("user", "one")]]
        _, again = await gateway.get(f"/v1/responses/{first['id']}/input_items")
        assert again == listed


def make_older(folder: Path) -> None:
    """Rewrite the files of an answer log as the version before would have written them."""
    for path in list(folder.iterdir()):
        if name := FileName.parse(path.name):
            records, _ = read_records(path.read_bytes())
            assert isinstance(records[0], Accepted)
            records[0] = msgspec.structs.replace(records[0], referenced=(), format=1)
            path.unlink()
            older = FileName(name.number, name.id, name.key, 1, name.ended)
            (folder / str(older)).write_bytes(b"".join(map(pack_record, records)))


def files_of(gateways: Gateways, answer_id: str) -> tuple[FileName, bytes]:
    """Return the name and the content of an answer's file."""
    for path in (gateways.home / "answers").iterdir():
        name = FileName.parse(path.name)
        if name is not None and name.id == answer_id:
            return name, path.read_bytes()
    raise AssertionError(answer_id)


async def test_conversation_in_an_answer_log_of_the_previous_version_can_be_continued(gateways):
    """Its files remain as that version can read them, in case it is put back."""
    async with gateways.next() as gateway:
        _, second = await two_turns(gateway)
        running = await gateway.begin("three", previous_response_id=second["id"])
    make_older(gateways.home / "answers")
    async with gateways.next() as gateway:
        assert (await gateway.get(f"/v1/streams/{running}"))[0] == 200
    name, data = files_of(gateways, running)
    assert name.format == 1 and b"referenced" not in data
    async with gateways.next() as gateway:
        await gateway.response("four", previous_response_id=f"resp_{running}")
        assert gateway.engine.prompts == [[*TURNS, ("user", "three"), ("assistant", "ok"), ("user", "four")]]


async def taken_over(gateway: Gateway, first: dict[str, Any], format: int) -> None:
    """Have the gateway finish a request that continues `first`, from another machine that reads `format`."""
    records = await gateway.keeper.log.records(first["id"].removeprefix("resp_"))
    assert records is not None and isinstance(records[0], Accepted)
    body = b'{"model":"m","input":"two","previous_response_id":"%s"}' % first["id"].encode()
    await gateway.keeper.take_over(
        [msgspec.structs.replace(records[0], id="moved", body=body, format=format)]
    )
    await until(lambda: not gateway.keeper.running)


async def test_request_taken_over_from_another_machine_can_be_continued_without_its_referenced_response(
    gateways,
):
    """The other machine writes the first record, and knows only the body."""
    async with gateways.next() as gateway:
        first = await gateway.response("one")
        await taken_over(gateway, first, FORMAT)
        assert any(isinstance(each, Referenced) for each in await gateway.keeper.log.records("moved") or ())
        await gateway.http.delete(f"/v1/responses/{first['id']}")
    async with gateways.next() as gateway:
        await gateway.response("three", previous_response_id="resp_moved")
        assert gateway.engine.prompts == [[*TURNS, ("user", "three")]]
    assert files_of(gateways, "moved")[0].format == 2


async def test_request_taken_over_from_a_machine_of_the_previous_version_is_stored_in_the_previous_format(
    gateways,
):
    """That machine fetches the records, and asked for all of them again and again from the unknown one on."""
    async with gateways.next() as gateway:
        first = await gateway.response("one")
        await taken_over(gateway, first, OLDEST_FORMAT)
        assert gateway.engine.prompts[-1] == TURNS[:3]
    name, data = files_of(gateways, "moved")
    assert name.format == 1 and b"referenced" not in data
    async with gateways.next() as gateway:
        await gateway.response("three", previous_response_id="resp_moved")
        assert gateway.engine.prompts == [[*TURNS, ("user", "three")]]


async def test_conversation_of_turns_larger_together_than_the_body_budget_is_continued(gateways):
    """Each turn held its share of the budget while it waited for the turn before it."""
    gateways.body_budget_bytes = 400_000
    previous: dict[str, Any] = {}
    async with gateways.next() as gateway:
        for number in range(5):
            response = await gateway.response(f"{number}" + "x" * 100_000, **previous)
            previous = {"previous_response_id": response["id"]}
    async with gateways.next() as gateway:
        await gateway.response("y" * 300_000, **previous)
        assert len(gateway.engine.prompts[0]) == 11


async def test_response_too_large_for_the_memory_is_found_in_the_log(gateways):
    """It was made again, dropped from memory at once, and not found there."""
    async with gateways.next() as gateway:
        first = await gateway.response("one")
        store = MemoryResponseStore(3600, gateways.clock.now, max_bytes=10)
        earlier = EarlierResponses(gateway.context, store)
        found = await asyncio.gather(*(earlier.find(first["id"]) for _ in range(3)))
        assert [each.run.events.response["output"] for each in found if each] == [first["output"]] * 3
        assert store.find(first["id"]) is None


async def test_response_whose_client_has_left_is_shown_as_cancelled_by_the_next_gateway_until_it_is_resumed(
    gateways,
):
    """Whoever looked at it had the engine go on with it, for nobody, and it could not be continued."""
    async with gateways.next() as gateway:
        gateway.engine.is_slow = True
        left = await gateway.streamed_then_left("one", frames=5)
        before = await gateway.get(f"/v1/responses/{left}")
        assert (before[1]["status"], before[1]["output"][0]["content"][0]["text"]) == ("cancelled", "o")
    async with gateways.next() as gateway:
        assert await gateway.get(f"/v1/responses/{left}") == before
        await gateway.response("two", previous_response_id=left)
        assert gateway.engine.prompts == [[("user", "one"), ("assistant", "o"), ("user", "two")]]
        resumed = await gateway.http.get(f"/v1/streams/{left.removeprefix('resp_')}")
        assert "response.completed" in resumed.text
        assert (await gateway.get(f"/v1/responses/{left}"))[1]["status"] == "completed"


async def test_background_response_that_a_lost_machine_had_taken_over_is_continued_when_a_client_fetches_it(
    gateways,
):
    """A machine that took it over, and was lost, leaves it so."""
    async with gateways.next() as gateway:
        answer_id = await gateway.begin("one", background=True)
        gateway.keeper.log.append(answer_id, Left())
    async with gateways.next() as gateway:
        gateway.engine.is_slow = True
        status, shown = await gateway.get(f"/v1/responses/resp_{answer_id}")
        assert (status, shown["status"]) == (200, "in_progress")
        assert len(gateway.engine.prompts) == 1


class Others:
    """Stands in for the other machines. They have all answers, unless `are_living` is False."""

    are_living = True

    async def holding(self, head: Accepted, *, only_looks: bool = False) -> Any:
        return (lambda *_, **__: None) if self.are_living else None

    async def place(self, head: Accepted) -> None: ...
    def may_serve(self, head: Accepted, error: Exception) -> bool:
        return False

    def stop_writing(self) -> None: ...


async def test_response_that_another_machine_continues_is_answered_with_503_and_retry_after(gateways):
    """It was reported as not found, although the next request for it is sent to that machine."""
    async with gateways.next() as gateway:
        gateway.engine.is_slow = True
        left = await gateway.streamed_then_left("one", frames=5)
    async with gateways.next() as gateway:
        gateway.keeper.offers.others = Others()
        answer = await gateway.http.get(f"/v1/responses/{left}")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert (await gateway.ask("two", previous_response_id=left))[0] == 503


async def test_response_of_a_machine_that_is_reachable_again_is_no_longer_shown_as_cancelled(gateways):
    """It was shown as cancelled for an hour, although the other machine had finished it meanwhile."""
    async with gateways.next() as gateway:
        gateway.engine.is_slow = True
        left = await gateway.streamed_then_left("one", frames=5)
    async with gateways.next() as gateway:
        gateway.keeper.offers.others = others = Others()
        others.are_living = False
        status, shown = await gateway.get(f"/v1/responses/{left}")
        assert (status, shown["status"]) == (200, "cancelled")
        others.are_living = True
        assert (await gateway.get(f"/v1/responses/{left}"))[0] == 503
        answer_id, log = left.removeprefix("resp_"), gateway.keeper.log
        log.append(answer_id, Event(0, protocol.Token(answer_id, 1, "k", 1)))
        log.append(answer_id, Event(0, protocol.Done(answer_id, "stop", USAGE)))
        log.ended(answer_id)
        status, shown = await gateway.get(f"/v1/responses/{left}")
        assert (status, shown["status"]) == (200, "completed")
        assert shown["output"][0]["content"][0]["text"] == "ok"


async def test_response_route_answers_404_for_an_answer_that_is_no_stored_response_and_does_not_run_it(
    gateways,
):
    async with gateways.next() as gateway:
        unstored = await gateway.response("one", store=False)
        compacting = await gateway.begin("two", "/compact")
    async with gateways.next() as gateway:
        await gateway.get(f"/v1/streams/{compacting}")
        ran = len(gateway.engine.prompts)
        for answer_id in (unstored["id"], f"resp_{compacting}", unstored["id"].removeprefix("resp_")):
            assert (await gateway.get(f"/v1/responses/{answer_id}"))[0] == 404
        assert len(gateway.engine.prompts) == ran
