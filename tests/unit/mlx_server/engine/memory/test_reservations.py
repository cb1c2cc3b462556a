"""The memory that is reserved for an answer, and how it is extended as the answer grows."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mlx_server.engine.memory.ledger import MemoryReading
from mlx_server.engine.memory.reservations import UNLIMITED_ANSWER_TOKENS, reserved_answer_tokens
from tests.unit.mlx_server.engine.memory.test_memory_guard import Machine, generate


def growing(machine: Machine) -> Callable[[int], bool]:
    """Admit an answer without `max_tokens`. Return a function that extends its reservation as the runner does
    when prompt and answer have this number of tokens.
    """
    machine.load("Llama-3.1-8B")
    machine.admit(generate("a", "Llama-3.1-8B", max_tokens=None))
    return lambda tokens: machine.guard.extend_reservation("Llama-3.1-8B", "a", tokens, 100_000)


def test_answer_without_max_tokens_reserves_memory_for_a_bounded_number_of_tokens():
    assert reserved_answer_tokens(generate("a", "m", None), 100_000) == UNLIMITED_ANSWER_TOKENS
    assert reserved_answer_tokens(generate("a", "m", -1), 50) == 50
    assert reserved_answer_tokens(generate("a", "m", 9000), 9000) == 9000
    resumed = generate("a", "m", None, emitted=tuple(range(5000)))
    assert 5000 < reserved_answer_tokens(resumed, 100_000) < 6000


def test_growing_answer_without_max_tokens_extends_its_reservation_while_memory_is_free():
    machine = Machine(limit_gib=6)
    machine.load("Llama-3.1-8B")
    machine.admit(generate("a", "Llama-3.1-8B", max_tokens=None))
    grown = next(
        n
        for n in range(100, 100_000)
        if not machine.guard.extend_reservation("Llama-3.1-8B", "a", n, 100_000)
    )
    assert 8_000 < grown < 12_000  # 1.6 GiB of 128 KiB a token, less the peaks
    assert machine.guard.extend_reservation("Llama-3.1-8B", "a", grown, grown)  # what it was to have in all


def test_answer_with_max_tokens_reserves_all_of_its_memory_from_the_start():
    machine = Machine(limit_gib=6)
    machine.load("Llama-3.1-8B")
    machine.admit(generate("a", "Llama-3.1-8B", max_tokens=5000))
    machine.available = 0
    assert all(machine.guard.extend_reservation("Llama-3.1-8B", "a", n, 5100) for n in range(100, 5100))


@pytest.mark.parametrize("first_tokens", [101, 116, 132])
@pytest.mark.parametrize("step_tokens", [1, 2, 4, 9, 17, 500])
def test_answer_that_grows_by_several_tokens_a_step_extends_its_reservation(first_tokens, step_tokens):
    """Accepted drafts make several tokens a step. Reservations were once extended only at multiples of 32
    tokens, which such steps jump over, and the answers were cut after some 2,050 tokens.
    """
    can_grow = growing(Machine(limit_gib=20))
    assert all(can_grow(tokens) for tokens in range(first_tokens, 10_000, step_tokens))


def test_answer_whose_reservation_is_used_up_continues_if_memory_has_just_been_freed():
    machine = Machine(limit_gib=20)
    can_grow = growing(machine)
    free_bytes, machine.available = machine.available, 0
    assert all(can_grow(tokens) for tokens in range(101, 100 + UNLIMITED_ANSWER_TOKENS))
    machine.available = free_bytes
    assert can_grow(100 + UNLIMITED_ANSWER_TOKENS)


def test_memory_is_read_only_every_32_tokens_while_a_reservation_cannot_grow():
    machine = Machine(limit_gib=20)
    can_grow = growing(machine)
    machine.available, readings, read = 0, list[MemoryReading](), machine.read

    def read_and_count() -> MemoryReading:
        readings.append(read())
        return readings[-1]

    machine.guard._read = read_and_count
    assert all(can_grow(tokens) for tokens in range(101, 100 + UNLIMITED_ANSWER_TOKENS))
    assert len(readings) == 256 // 32
    assert not can_grow(100 + UNLIMITED_ANSWER_TOKENS)
