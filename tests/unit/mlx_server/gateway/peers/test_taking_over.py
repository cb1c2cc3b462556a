"""An answer that is handed over several times at once runs once, and its file has each token once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.responses import JSONResponse

from mlx_server.gateway.answer_log import AnswerLog, Event, Record, pack_record
from mlx_server.gateway.dialects.body_budget import BodyBudget, ShareBodies
from mlx_server.gateway.kept_answers.keeper import AnswerKeeper
from mlx_server.gateway.kept_answers.kept_answer import kept_answer_of
from mlx_server.gateway.peers import routes
from mlx_server.gateway.peers.mirrored import MirrorBatch, MirroredAnswers
from mlx_server.gateway.peers.mirroring import LOOK_S, TakeOverMirrored
from mlx_server.gateway.peers.passed_on import packed
from tests.disks.answer_log_fixtures import Logs, accepted, token
from vestal.web.http_error import HttpError

ID = "a" * 32
KEY = "a-key-of-sixteen-or-more"
RECORDS: list[Record] = [accepted(ID), token(0), token(1)]


class Receiver:
    """A gateway to which others hand answers over. `runs` counts how often an answer was begun.

    `models` is a lock that a test holds while a request waits for the list of models; `is_asked` is set once
    so many requests wait as `awaited` says.
    """

    def __init__(self, log: AnswerLog, logs: Logs) -> None:
        self.log, self.clock, self.runs = log, logs.clock, 0
        self.models = asyncio.Lock()
        self.waiting, self.awaited, self.is_asked = 0, 1, asyncio.Event()
        self.keeper = AnswerKeeper(log, logs.clock)
        self.keeper.use_app(self._respond)
        self.mirrored = MirroredAnswers()
        self.take_over = self.keeper.mirrored = TakeOverMirrored(
            self.mirrored, self.keeper, logs.clock, logs.emit
        )
        context = SimpleNamespace(
            config=SimpleNamespace(mlx=SimpleNamespace(peer_key=KEY, max_body_bytes=10**6)),
            clock=logs.clock,
            emit=logs.emit,
            installed_models=self,
            dispatcher=SimpleNamespace(refusing=None, engine_too_late=lambda: None),
        )
        app = FastAPI()
        app.add_exception_handler(HttpError, _refused)
        app.add_middleware(ShareBodies, budget=BodyBudget(10**8))
        paths = {"/v1/chat/completions"}
        app.include_router(routes.router(context, self.keeper, self.mirrored, paths))  # type: ignore[arg-type]
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(app),
            base_url="http://here",
            headers={"Authorization": f"Bearer {KEY}"},
        )

    async def get(self, name: str) -> Any:
        """Stand in for the list of models."""
        self.waiting += 1
        if self.waiting == self.awaited:
            self.is_asked.set()
        async with self.models:
            return SimpleNamespace(digest="")

    async def _respond(self, scope: Any, receive: Any, send: Any) -> None:
        self.runs += 1
        answer = kept_answer_of(scope)
        assert answer is not None
        answer.has_news.set()
        await asyncio.Event().wait()

    async def hand_over(self) -> httpx.Response:
        return await self.http.put(f"/v1/streams/{ID}", content=packed(RECORDS))

    async def tokens(self) -> list[int]:
        records = await self.log.records(ID) or []
        return [record.event.token for record in records if isinstance(record, Event)]  # type: ignore[union-attr]

    def mirror(self, *answers: tuple[str, bytes]) -> None:
        """Take from another machine the copies of its answers."""
        sizes = {answer_id: len(data) for answer_id, data in answers}
        parts = [(answer_id, 0, data) for answer_id, data in answers]
        self.mirrored.receive(MirrorBatch("another", sizes, parts), frozenset(), self.clock.now())


async def _refused(request: Any, error: Any) -> JSONResponse:
    return JSONResponse({"code": error.code}, error.status)


@pytest.fixture
async def receiver(tmp_path: Path) -> Any:
    logs = Logs(tmp_path)
    made = Receiver(await logs.open(), logs)
    yield made
    await made.http.aclose()
    await made.keeper.close()


async def test_answer_handed_over_twice_at_once_runs_once_and_its_file_has_each_token_once(receiver):
    async with receiver.models:
        both = [asyncio.ensure_future(receiver.hand_over()) for _ in range(2)]
        receiver.awaited = 2
        await asyncio.wait_for(receiver.is_asked.wait(), 5)
    assert sorted(response.status_code for response in await asyncio.gather(*both)) == [200, 201]
    assert (receiver.runs, await receiver.tokens()) == (1, [1000, 1001])


async def test_answer_handed_over_while_a_client_takes_it_from_the_mirror_runs_once(receiver):
    receiver.mirror((ID, packed(RECORDS)))
    async with receiver.models:
        handed_over = asyncio.ensure_future(receiver.hand_over())
        await asyncio.wait_for(receiver.is_asked.wait(), 5)
        found = await receiver.keeper.find(ID)
    assert (await handed_over).status_code == 200
    assert (receiver.runs, await receiver.tokens()) == (1, [1000, 1001])
    assert await receiver.keeper.find(ID) is found


async def test_take_over_of_an_answer_that_already_runs_here_returns_the_running_one_and_adds_no_tokens(
    receiver,
):
    """The records were once appended to the file of the running answer, which has them already."""
    taken_over = await receiver.keeper.take_over(RECORDS)
    assert await receiver.keeper.take_over(RECORDS) is taken_over
    await asyncio.sleep(0)
    assert (receiver.runs, await receiver.tokens()) == (1, [1000, 1001])


async def test_answer_of_a_dead_machine_is_finished_although_another_answer_cannot_be_taken_over(
    receiver, monkeypatch
):
    """One unforeseen error would have ended the finishing of all dead machines' answers."""
    faulty = accepted("f" * 32)
    receiver.mirror((faulty.id, pack_record(faulty)), (ID, packed(RECORDS)))
    take_over = receiver.keeper.take_over

    async def failing(records: Any) -> Any:
        if records[0].id == faulty.id:
            raise RuntimeError("unforeseen")
        return await take_over(records)

    monkeypatch.setattr(receiver.keeper, "take_over", failing)
    running = asyncio.ensure_future(receiver.take_over.run())
    await receiver.clock.run_for(12 * LOOK_S)
    assert not running.done() and receiver.keeper.has(ID)
    running.cancel()


async def test_answer_of_a_dead_machine_is_finished_once_the_log_can_be_written_again(receiver, monkeypatch):
    """Its copy was deleted before the log had taken it, so it was lost although the disk had room later."""
    receiver.mirror((ID, packed(RECORDS)))
    running = asyncio.ensure_future(receiver.take_over.run())
    with monkeypatch.context() as full_disk:
        full_disk.setattr(receiver.keeper, "is_logged", lambda answer_id: False)
        await receiver.clock.run_for(12 * LOOK_S)
        with pytest.raises(HttpError, match="cannot write the answer down"):
            await receiver.keeper.find(ID)
        assert receiver.runs == 0
        receiver.log.forget(ID)
    await receiver.clock.run_for(12 * LOOK_S)
    assert (receiver.runs, await receiver.tokens()) == (1, [1000, 1001])
    running.cancel()


async def test_gateway_suspended_for_15_s_takes_over_no_answer_of_a_machine_whose_messages_are_still_unread(
    receiver,
):
    """A process that was stopped for 15 s (SIGSTOP, swapping) looked for dead machines before it read the
    messages that waited in its sockets, and took all answers of living machines over.
    """
    receiver.mirror((ID, packed(RECORDS)))
    running = asyncio.ensure_future(receiver.take_over.run())
    await receiver.clock.run_for(0.9 * LOOK_S)
    receiver.clock.advance(15.0)
    for _ in range(5):  # the looks are 1 s apart, and the other machine mirrors twice a second
        await receiver.clock.run_for(LOOK_S)
        assert receiver.runs == 0
        receiver.mirror((ID, packed(RECORDS)))
    await receiver.clock.run_for(12 * LOOK_S)
    assert (receiver.runs, await receiver.tokens()) == (1, [1000, 1001])
    running.cancel()


async def test_gateway_suspended_for_an_hour_finishes_the_answers_of_a_machine_that_died_meanwhile(receiver):
    """However long the process stood still, a machine is dead after 10 s of silence from then on."""
    receiver.mirror((ID, packed(RECORDS)))
    running = asyncio.ensure_future(receiver.take_over.run())
    await receiver.clock.run_for(0.9 * LOOK_S)
    receiver.clock.advance(3600.0)
    await receiver.clock.run_for(12 * LOOK_S)
    assert (receiver.runs, await receiver.tokens()) == (1, [1000, 1001])
    running.cancel()


async def test_batch_of_mirrored_records_with_deeply_nested_fields_is_refused_as_invalid(receiver):
    nested = b"\x91" * 30_000 + b"\xc0"
    body = b"\x84\xa6origin\xa1x\xa5sizes\x80\xa5parts\x90\xa4more" + nested
    response = await receiver.http.post("/v1/streams/mirror", content=body)
    assert (response.status_code, response.json()["code"]) == (400, "invalid_request")
