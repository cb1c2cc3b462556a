"""The room where requests wait for their model."""

from mlx_server.engine.scheduling.waiting import WaitingRoom
from mlx_server.protocol import Embed, Generate, Load


def room():
    waiting = WaitingRoom()
    waiting.add(Load("1", "a"))
    waiting.add(Embed("2", "b", ("text",)))
    waiting.add(Embed("3", "a", ("text",)))
    return waiting


def test_models_are_listed_by_their_first_request():
    assert room().models() == ["a", "b"]


def test_room_knows_which_models_cut_off_answers_wait_for():
    waiting = room()
    waiting.add(Generate("4", "a", "text", prompt="p"))
    waiting.add(Generate("5", "b", "text", prompt="p", emitted=(1,)))
    assert (waiting.resumes("a"), waiting.resumes("b")) == (False, True)


def test_take_gives_all_of_a_model_in_order():
    waiting = room()
    assert [op.id for op in waiting.take("a")] == ["1", "3"]
    assert waiting.models() == ["b"]


def test_remove_gives_the_request_or_none():
    waiting = room()
    removed = waiting.remove("3")
    assert removed is not None
    assert removed.id == "3"
    assert waiting.remove("3") is None
    assert len(waiting) == 2


def test_clear_empties_the_room():
    waiting = room()
    assert [op.id for op in waiting.clear()] == ["1", "2", "3"]
    assert len(waiting) == 0
