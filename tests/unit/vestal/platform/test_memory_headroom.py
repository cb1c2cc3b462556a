"""Whether a model server may be started again, by the machine's memory."""

from __future__ import annotations

import pytest

from host_agent.recovery.facts import Facts
from host_agent.recovery.plan import ONLY_A_REBOOT, plan
from vestal.platform import model_servers
from vestal.platform.memory import Memory
from vestal.platform.memory_headroom import Headroom, headroom

GIB = 2**30


def memory(available: float = 0.5, wired: float | None = None, swap: tuple[int, int] = (0, 0)) -> Memory:
    total = 64 * GIB
    return Memory(total, int(available * total), *swap, None if wired is None else int(wired * total))


def test_machine_with_memory_left_has_room():
    assert headroom(memory()) == Headroom()
    assert headroom(memory(wired=0.69)) == Headroom()


def test_wired_memory_that_nobody_holds_is_freed_by_a_reboot_only():
    found = headroom(memory(wired=0.8))
    assert found.only_a_reboot
    assert "80%" in found.lacking and "reboot" in found.sentence


def test_wired_memory_of_a_living_server_is_not_stranded():
    assert headroom(memory(wired=0.8), held_bytes=30 * GIB) == Headroom()
    assert headroom(memory(wired=0.8), held_bytes=2 * GIB).only_a_reboot


@pytest.mark.parametrize(
    ("swap", "room"), [((0, 0), False), ((10 * GIB, 10 * GIB), False), ((GIB, 10 * GIB), True)]
)
def test_machine_without_available_memory_has_room_as_long_as_it_can_swap(swap, room):
    found = headroom(memory(available=0.01, swap=swap))
    assert (not found.lacking) == room
    assert not found.only_a_reboot
    assert room or "close programs" in found.sentence


def test_plan_tells_a_person_that_only_a_reboot_helps():
    (issue,) = plan(Facts(services=(), headroom=headroom(memory(wired=0.9))))
    assert (issue.event, issue.remedy) == (ONLY_A_REBOOT, None)
    assert "90%" in issue.found and "reboot" in issue.left


@pytest.mark.parametrize(
    ("name", "command", "is_one"),
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
def test_model_servers_are_told_by_name_and_module(name, command, is_one):
    assert model_servers.is_model_server(name, command) is is_one


def test_look_at_this_machine_gives_a_word():
    assert isinstance(model_servers.look(), Headroom)
    assert model_servers.held_bytes() >= 0
