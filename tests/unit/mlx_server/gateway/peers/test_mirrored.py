"""Copies of other machines' answers: what is wanted, what is kept, and when they are finished here."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mlx_server.gateway.answer_log import FORMAT, Accepted, pack_record
from mlx_server.gateway.peers.mirrored import MirrorBatch, MirroredAnswers

NOBODY: frozenset[str] = frozenset()


def batch(sizes: dict[str, int], *parts: tuple[str, int, bytes], origin: str = "a") -> MirrorBatch:
    return MirrorBatch(origin, sizes, list(parts))


def test_only_the_part_of_a_mirrored_answer_after_the_end_of_its_stored_copy_is_requested():
    mirrored = MirroredAnswers()
    assert mirrored.receive(batch({"x": 5}), NOBODY, 0.0).want == {"x": 0}
    assert mirrored.receive(batch({"x": 7}, ("x", 0, b"12345")), NOBODY, 0.0).want == {"x": 5}
    assert mirrored.receive(batch({"x": 7}, ("x", 3, b"4567")), NOBODY, 0.0).want == {}
    assert mirrored.take("x") == b"1234567"
    assert (mirrored.take("x"), mirrored.total_bytes) == (None, 0)


def test_mirrored_answer_refuses_records_with_a_gap_before_them():
    mirrored = MirroredAnswers()
    assert mirrored.receive(batch({"x": 9}, ("x", 4, b"12345")), NOBODY, 0.0).want == {"x": 0}


def test_copy_of_another_machines_answer_is_deleted_when_the_answer_has_ended_there_or_runs_here():
    mirrored = MirroredAnswers()
    mirrored.receive(batch({"x": 1, "y": 1}, ("x", 0, b"1"), ("y", 0, b"1")), NOBODY, 0.0)
    assert mirrored.receive(batch({"y": 1}), {"y"}, 0.0).want == {}
    assert mirrored.take_of_dead(99.0, 10.0) == []


def test_mirrored_answers_of_a_machine_silent_for_ten_seconds_are_taken_over_once():
    mirrored = MirroredAnswers()
    mirrored.receive(batch({"x": 1}, ("x", 0, b"1")), NOBODY, 0.0)
    mirrored.receive(batch({"y": 1}, ("y", 0, b"2"), origin="b"), NOBODY, 5.0)
    assert mirrored.take_of_dead(9.9, 10.0) == []
    assert mirrored.take_of_dead(10.0, 10.0) == [b"1"]
    assert mirrored.take_of_dead(99.0, 10.0) == [b"2"]
    assert mirrored.take_of_dead(99.0, 10.0) == []


def test_mirrored_answer_put_back_can_be_taken_at_once_and_counts_as_of_a_dead_machine_after_ten_seconds():
    mirrored = MirroredAnswers()
    mirrored.put_back("x", b"1", 0.0)
    mirrored.put_back("y", b"2", 9.0)
    assert (mirrored.take("y"), mirrored.total_bytes) == (b"2", 1)
    assert mirrored.take_of_dead(9.9, 10.0) == []
    assert (mirrored.take_of_dead(10.0, 10.0), mirrored.total_bytes) == ([b"1"], 0)


def test_mirrored_answer_put_back_is_replaced_when_its_own_machine_mirrors_the_answer_again():
    mirrored = MirroredAnswers()
    mirrored.put_back("x", b"1", 0.0)
    assert mirrored.receive(batch({"x": 2}), NOBODY, 1.0).want == {"x": 0}
    assert mirrored.take_of_dead(99.0, 10.0) == []


def test_mirrored_answer_is_found_by_its_idempotency_key():
    head = Accepted(FORMAT, "x", 0.0, "POST", "/api/chat", "", (), b"", 1, "the-key", "", "1")
    data = pack_record(head)
    mirrored = MirroredAnswers()
    mirrored.receive(batch({"x": len(data)}, ("x", 0, data)), NOBODY, 0.0)
    assert (mirrored.id_of_key("the-key"), mirrored.id_of_key("another")) == ("x", None)


@given(st.dictionaries(st.sampled_from("abc"), st.integers(0, 30)), st.integers(0, 40))
def test_bytes_requested_of_other_machines_answers_never_exceed_the_room_for_their_copies(sizes, max_bytes):
    want = MirroredAnswers(max_bytes).receive(batch(sizes), NOBODY, 0.0).want
    assert sum(sizes[each] for each in want) <= max_bytes


class Mirror(RuleBasedStateMachine):
    """A machine whose batches are lost now and then: what is kept is always a beginning of what it has."""

    def __init__(self) -> None:
        super().__init__()
        self.mirrored = MirroredAnswers(max_bytes=60)
        self.real: dict[str, bytes] = {}
        self.want: dict[str, int] = {}
        self.ended: set[str] = set()

    @rule(name=st.sampled_from("uvwxyz"), data=st.binary(min_size=1, max_size=9))
    def grow(self, name: str, data: bytes) -> None:
        if name not in self.ended:  # ids are not used again
            self.real[name] = self.real.get(name, b"") + data

    @rule(name=st.sampled_from("uvwxyz"))
    def end(self, name: str) -> None:
        self.ended.add(name)
        self.real.pop(name, None)
        self.want.pop(name, None)

    @rule(cut=st.integers(1, 9), is_lost=st.booleans())
    def send(self, cut: int, is_lost: bool) -> None:
        parts = [(name, start, self.real[name][start : start + cut]) for name, start in self.want.items()]
        sizes = {name: len(data) for name, data in self.real.items()}
        if not is_lost:
            self.want = self.mirrored.receive(MirrorBatch("a", sizes, parts), NOBODY, 0.0).want

    @invariant()
    def what_is_kept_is_bounded(self) -> None:
        assert 0 <= self.mirrored.total_bytes <= 60

    def teardown(self) -> None:
        sizes = {name: len(data) for name, data in self.real.items()}
        self.mirrored.receive(MirrorBatch("a", sizes), NOBODY, 0.0)
        for name, data in self.real.items():
            assert data.startswith(self.mirrored.take(name) or b"")


TestMirror = Mirror.TestCase
TestMirror.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
