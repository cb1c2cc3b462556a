"""All requests of the engine by id, and the queues as views of them."""

from __future__ import annotations

import pytest

from mlx_server.engine.scheduling.request import TRANSITIONS, Request, RequestStatus
from mlx_server.engine.scheduling.request_table import EngineRequests, IllegalTransition
from mlx_server.protocol import Embed, Generate, Load

FOR_MODEL = RequestStatus.WAITING_FOR_MODEL
FOR_MEMORY = RequestStatus.WAITING_FOR_MEMORY
TOKENIZING = RequestStatus.TOKENIZING
PATHS: dict[RequestStatus, list[RequestStatus]] = {
    RequestStatus.WAITING_FOR_MODEL: [],
    RequestStatus.TOKENIZING: [TOKENIZING],
    RequestStatus.WAITING_FOR_MEMORY: [TOKENIZING, FOR_MEMORY],
    RequestStatus.PREPARING: [TOKENIZING, FOR_MEMORY, RequestStatus.PREPARING],
    RequestStatus.RUNNING: [TOKENIZING, RequestStatus.RUNNING],
    RequestStatus.FINISHED: [RequestStatus.FINISHED],
}
"""How a new request reaches each status."""


def table_of(*ops: Generate | Embed | Load) -> EngineRequests:
    table = EngineRequests()
    for op in ops:
        table.add(Request(op))
    return table


@pytest.fixture
def table() -> EngineRequests:
    return table_of(Load("1", "a"), Embed("2", "b", ("text",)), Embed("3", "a", ("text",)))


def ids(requests: list[Request]) -> list[str]:
    return [request.id for request in requests]


def got(table: EngineRequests, request_id: str) -> Request:
    request = table.get(request_id)
    assert request is not None
    return request


def test_models_of_queued_requests_are_ordered_by_their_first_request(table):
    assert table.models(FOR_MODEL) == ["a", "b"]


def test_queue_of_one_model_has_its_requests_in_order_of_arrival(table):
    assert ids(table.select(FOR_MODEL, model="a")) == ["1", "3"]
    assert ids(table.select(FOR_MODEL)) == ["1", "2", "3"]


def test_finished_request_is_in_no_queue(table):
    table.finish(got(table, "3"))
    assert table.get("3") is None
    assert "3" not in table
    assert len(table) == 2
    assert ids(table.select(*RequestStatus)) == ["1", "2"]


def test_requests_in_a_queue_are_ordered_by_the_time_they_entered_the_queue_and_not_by_arrival():
    table = table_of(*(Generate(id, "m", "text", prompt="p") for id in "abc"))
    for id in "ca":
        table.move(got(table, id), TOKENIZING)
        table.move(got(table, id), FOR_MEMORY)
    assert ids(table.select(FOR_MEMORY)) == ["c", "a"]
    table.move(got(table, "c"), FOR_MODEL)  # its model was unloaded: behind those that wait already
    assert ids(table.select(FOR_MODEL)) == ["b", "c"]
    assert ids(table.select(FOR_MEMORY, FOR_MODEL)) == ["a", "b", "c"]


def test_first_and_any_find_only_requests_of_the_given_queue_and_model(table):
    first = table.first(FOR_MODEL, model="b")
    assert first is not None and first.id == "2"
    assert table.any(FOR_MODEL, model="b")
    assert not table.any(FOR_MODEL, model="c")
    assert not table.any(FOR_MEMORY)


def test_request_moved_to_the_back_is_the_last_of_its_queue(table):
    table.move_to_back(got(table, "1"))
    assert ids(table.select(FOR_MODEL)) == ["2", "3", "1"]


def test_second_request_with_an_id_in_use_is_refused_by_the_request_table(table):
    with pytest.raises(ValueError, match="'1' is in use"):
        table.add(Request(Load("1", "b")))
    assert table.models(FOR_MODEL) == ["a", "b"]


@pytest.mark.parametrize("before", RequestStatus)
@pytest.mark.parametrize("after", RequestStatus)
def test_only_listed_status_transitions_of_a_request_are_allowed(before, after):
    table = table_of(Generate("a", "m", "text", prompt="p"))
    request = got(table, "a")
    for status in PATHS[before]:
        table.move(request, status)
    if after in TRANSITIONS[before]:
        table.move(request, after)
        assert request.status is after
    else:
        with pytest.raises(IllegalTransition, match=f"{before.value} -> {after.value}"):
            table.move(request, after)
        assert request.status is before


def test_finish_of_a_request_from_another_request_table_raises_and_removes_nothing(table):
    with pytest.raises(IllegalTransition):
        table.finish(Request(Load("1", "a")))
    assert len(table) == 3


@pytest.mark.parametrize(
    ("op", "resumes"),
    [
        (Generate("1", "m", "text", prompt="p"), False),
        (Generate("1", "m", "text", prompt="p", emitted=(1,)), True),
        (Embed("1", "m", ("text",)), False),
        (Load("1", "m"), False),
    ],
)
def test_only_a_generation_with_emitted_tokens_counts_as_resumed(op, resumes):
    assert Request(op).resumes is resumes
