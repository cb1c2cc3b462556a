"""Whether the machine's memory allows a model server to start."""

from __future__ import annotations

import pytest

from vestal.platform import model_servers
from vestal.platform.memory import Memory
from vestal.platform.memory_headroom import Headroom, headroom

GIB = 2**30


def memory(available: float = 0.5, wired: float | None = None, swap: tuple[int, int] = (0, 0)) -> Memory:
    total = 64 * GIB
    return Memory(total, int(available * total), *swap, None if wired is None else int(wired * total))


def test_memory_use_below_the_limits_leaves_enough_headroom():
    assert headroom(memory()) == Headroom()
    assert headroom(memory(wired=0.69)) == Headroom()


def test_memory_wired_by_no_model_server_is_a_shortage_that_needs_a_reboot():
    found = headroom(memory(wired=0.8))
    assert found.needs_reboot
    assert "80%" in found.shortage and "reboot" in found.message


def test_memory_headroom_does_not_count_memory_of_running_model_servers_as_stranded():
    assert headroom(memory(wired=0.8), model_server_bytes=30 * GIB) == Headroom()
    assert headroom(memory(wired=0.8), model_server_bytes=2 * GIB).needs_reboot


@pytest.mark.parametrize(
    ("swap", "enough"), [((0, 0), False), ((10 * GIB, 10 * GIB), False), ((GIB, 10 * GIB), True)]
)
def test_memory_headroom_without_available_memory_is_enough_only_while_swap_is_free(swap, enough):
    found = headroom(memory(available=0.01, swap=swap))
    assert (not found.shortage) == enough
    assert not found.needs_reboot
    assert enough or "close programs" in found.message


@pytest.mark.parametrize(
    ("name", "command", "expected"),
    [
        ("ollama", ["/usr/local/bin/ollama", "serve"], True),
        ("ollama", ["/usr/local/bin/ollama", "runner", "--model", "x"], True),
        ("ollama-mcp", ["node", "ollama-mcp"], False),
        ("python3.11", ["python", "-m", "mlx_server.engine", "--fd", "5"], True),
        ("python3.11", ["python", "-m", "mlx_lm.server"], True),
        ("python3.11", ["python", "-m", "mlx_server.gateway"], False),
        ("Safari", [], False),
    ],
)
def test_model_server_process_is_recognized_by_its_program_and_module(name, command, expected):
    assert model_servers.is_model_server(name, command) is expected


def test_current_memory_headroom_can_be_read_on_this_machine():
    assert isinstance(model_servers.current_headroom(), Headroom)
    assert model_servers.resident_bytes() >= 0
