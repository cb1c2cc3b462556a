"""The row of Ollama: whose it is, its version and models, and what is wrong."""

from __future__ import annotations

from dataclasses import replace

from host_agent.services.ollama.answers import Light, Verdict
from host_agent.services.ollama.ownership import Owner, OwnerKind
from host_agent.services.ollama.status import Scene, row
from vestal.supervision import ChildStatus, State

NONE = ChildStatus(State.STOPPED)
LIGHT = Light("0.32.5", ("a", "b"))
OTHERS = Scene(owner=Owner(OwnerKind.BREW, "homebrew.mxcl.ollama", 900, "ada"), light=LIGHT)
OURS = Scene(owner=Owner(OwnerKind.OURS, pid=7), light=LIGHT)


def test_row_of_an_adopted_one_names_owner_version_and_models():
    told = row(OTHERS, NONE)
    assert (told.state, told.process_pid, told.well) == (State.READY, 900, True)
    assert (
        told.detail == "version 0.32.5, 2 models; looked after by Homebrew's services (homebrew.mxcl.ollama)"
    )
    assert (told.extra["version"], told.extra["models"], told.extra["managed"]) == ("0.32.5", 2, False)


def test_row_of_an_adopted_one_in_trouble_says_what_and_whose():
    told = row(replace(OTHERS, light=None, verdict=Verdict(False, "no answer within 3 s"), failures=1), NONE)
    assert (told.state, told.well, told.health_check_failures) == (State.DEGRADED, False, 1)
    assert "does not answer (no answer within 3 s); looked after by Homebrew's" in told.detail


def test_row_of_a_busy_one_is_well():
    told = row(replace(OTHERS, verdict=Verdict(True, "busy: a token waits", busy=True)), NONE)
    assert (told.state, told.well, told.detail) == (State.BUSY, True, "busy: a token waits")


def test_row_of_another_users_server_says_so_and_how_to_stop_it():
    scene = replace(OTHERS, owner=Owner(OwnerKind.OTHER_USER, "eve", 900, "eve"), lists_none=True)
    told = row(scene, NONE)
    assert told.state is State.DEGRADED
    assert "as eve and lists no models" in told.detail
    assert "brew services stop ollama" in told.detail


def test_row_of_our_own_is_the_supervisors_and_tells_trouble_before_it_is_judged():
    child = ChildStatus(State.READY, 7, restart_count=2)
    assert row(OURS, child).detail == "version 0.32.5, 2 models; started by Vestal"
    assert row(OURS, child).restart_count == 2
    failing = replace(OURS, light=None, verdict=Verdict(False, "no answer within 3 s"))
    assert "does not answer (no answer within 3 s)" in row(failing, child).detail
    opened = ChildStatus(State.OPEN, circuit_breaker_state="open", detail="exit code 1: Error: listen tcp")
    assert row(replace(OURS, owner=Owner(), light=None), opened).detail == opened.detail


def test_row_of_a_strangers_port_where_ollama_is_not_installed_is_no_fault():
    scene = Scene(owner=Owner(OwnerKind.STRANGER, "nginx (PID 5)", 5), installed=False)
    told = row(scene, NONE)
    assert (told.state, told.well) == (State.ABSENT, True)
    assert "nginx (PID 5)" in told.detail
