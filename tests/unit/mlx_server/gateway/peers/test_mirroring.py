"""What a peer has written down about a request is copied, and is passed on with the request."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from mlx_server.gateway.answer_log import AnswerLog, Ended, Record, Referenced, pack_record
from mlx_server.gateway.kept_answers.keeper import AnswerKeeper
from mlx_server.gateway.kept_answers.kept_answer import KeptAnswer
from mlx_server.gateway.peers.mirrored import MirrorBatch, MirroredAnswers
from mlx_server.gateway.peers.mirroring import COPY_S, TakeOverMirrored, copy_records
from tests.disks.answer_log_fixtures import Logs, accepted, token

REFERENCED = Referenced((b"[]", b"[1]"))


@pytest.fixture
async def logs(tmp_path: Path) -> Logs:
    return Logs(tmp_path)


def packed(*records: Record) -> bytes:
    return b"".join(map(pack_record, records))


async def test_copy_of_a_request_from_the_peer_that_serves_the_request_includes_its_referenced_items(logs):
    """It was left out, so the request could not be continued here once the peer was lost."""
    log: AnswerLog = await logs.open()
    written = packed(REFERENCED, token(0), Ended())

    class Peer:
        async def records(self, answer_id: str, offset: int) -> bytes:
            return written[offset - 5 :]

    log.begin(accepted("a"))
    copying = asyncio.ensure_future(copy_records(log, Peer(), "a", 5, logs.clock))  # type: ignore[arg-type]
    await logs.clock.run_for(4 * COPY_S)
    await asyncio.wait_for(copying, 5)
    assert await log.records("a") == [accepted("a"), REFERENCED, token(0), Ended()]
    await log.close()


async def test_request_taken_over_from_a_dead_machine_includes_its_referenced_items(logs):
    """A machine that had it from a peer, and died in turn, has this in a record of its own."""
    log: AnswerLog = await logs.open()
    keeper = AnswerKeeper(log, logs.clock)

    async def respond(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    keeper.use_app(respond)
    mirrored, data = MirroredAnswers(), packed(accepted("a"), REFERENCED, token(0))
    mirrored.receive(MirrorBatch("another", {"a": len(data)}, [("a", 0, data)]), frozenset(), 0.0)
    answer = await TakeOverMirrored(mirrored, keeper, logs.clock, logs.emit).find("a")
    assert isinstance(answer, KeptAnswer) and answer.referenced == REFERENCED.parts
    await keeper.close()


async def test_request_offered_to_another_machine_includes_its_referenced_items(logs):
    """A request that a lost peer had served was offered to the next one without it."""
    log: AnswerLog = await logs.open()
    keeper, offered = AnswerKeeper(log, logs.clock), []

    class Others:
        async def offer(self, records: Any) -> None:
            offered.append(records)

    async def respond(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    keeper.use_app(respond)
    log.begin(accepted("a"))
    log.append("a", REFERENCED)
    answer = await keeper.find("a")
    await keeper.offers._settle(answer, Others())  # type: ignore[arg-type]
    assert offered[0][0].referenced == REFERENCED.parts
    await keeper.close()
