"""One host's breaker, and which host is picked: pure."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.llm.backend import Backend
from orchestrator.llm.breaker import BackendBreaker, BackendBreakerPolicy, BackendBreakerState
from orchestrator.llm.hosts import named, pick

CHAT = "smollm2:135m"
MODELS = frozenset({CHAT})


def failed(times: int, by_call: bool = True, now: float = 0.0) -> BackendBreaker:
    breaker = BackendBreaker()
    for _ in range(times):
        breaker = breaker.call_failed(now) if by_call else breaker.check_failed(now)
    return breaker


def test_breaker_opens_at_the_third_failure_in_a_row():
    assert failed(2).admits(0.0)
    assert failed(3).state is BackendBreakerState.OPEN
    assert not failed(3).admits(4.9)
    assert failed(2).call_succeeded().call_failed(0.0).state is BackendBreakerState.CLOSED


def test_breaker_half_open_admits_one_trial():
    trial = failed(3).admitted(5.0)
    assert trial.state is BackendBreakerState.HALF_OPEN
    assert not trial.admits(6.0)
    assert trial.call_succeeded() == BackendBreaker()
    again = trial.call_failed(6.0)
    assert (again.state, again.until) == (BackendBreakerState.OPEN, 16.0)  # twice as long


def test_breaker_trial_called_off_is_for_the_next_one():
    assert failed(3).admitted(5.0).abandoned(6.0).admits(6.0)
    assert BackendBreaker().abandoned(1.0) == BackendBreaker()


def test_breaker_trial_that_never_ends_is_given_up():
    trial = failed(3).admitted(5.0)
    assert trial.admits(5.0 + BackendBreakerPolicy().trial_s)


def test_breaker_opened_by_checks_is_closed_by_a_check():
    gone = failed(3, by_call=False)
    assert not gone.wants_check(0.9)
    assert gone.wants_check(1.0)
    assert gone.check_passed() == BackendBreaker()


def test_breaker_opened_by_calls_is_not_fooled_by_a_check():
    ill = failed(3)
    assert ill.wants_check(0.0)
    assert ill.check_passed() == ill


def test_breaker_missed_checks_count_in_a_row_only():
    breaker = failed(2, by_call=False).check_passed().check_failed(9.0)
    assert (breaker.state, breaker.missed) == (BackendBreakerState.CLOSED, 1)
    assert (
        failed(2).check_passed().call_failed(0.0).state is BackendBreakerState.OPEN
    )  # a check says nothing about calls


def test_breaker_calls_that_began_before_it_opened_do_not_lengthen_it():
    assert failed(9).until == failed(3).until


@given(st.lists(st.tuples(st.floats(0, 30), st.booleans(), st.booleans()), max_size=80))
def test_breaker_never_admits_two_trials_and_always_admits_in_the_end(steps: list[tuple[float, bool, bool]]):
    breaker, now = BackendBreaker(), 0.0
    for gap, good, by_call in steps:
        now += gap
        if by_call and breaker.admits(now):
            breaker = breaker.admitted(now)
            assert breaker.state is BackendBreakerState.CLOSED or not breaker.admits(now)
            breaker = breaker.call_succeeded() if good else breaker.call_failed(now)
        elif not by_call and breaker.wants_check(now):
            breaker = breaker.check_passed() if good else breaker.check_failed(now)
        assert breaker.admits(now + BackendBreakerPolicy().max_call_open_s)


def test_hosts_named_first_of_a_kind_bears_its_name():
    urls = named(("http://a:1", "http://b:1"), ())
    assert urls == {"mlx": "http://a:1", "mlx-2": "http://b:1", "ollama": ""}
    second = Backend("mlx-2", used=True, healthy=True)
    assert (second.kind, second.of_this_machine) == ("mlx", False)
    assert Backend("mlx", used=True, healthy=True).of_this_machine


URLS = named(("http://a:1", "http://b:1"), ("http://a:2",))
ALL = tuple(Backend(name, used=True, healthy=True, models=MODELS) for name in URLS)
WHOLE = {name: BackendBreaker() for name in URLS}


def picked(
    load: dict[str, int], backends: tuple[Backend, ...] = ALL, **breakers: BackendBreaker
) -> str | None:
    found = pick(backends, CHAT, URLS, load, WHOLE | breakers, 0.0)
    return found.name if found else None


def test_pick_least_loaded_machine_first_and_mlx_before_ollama_on_one():
    assert picked({}) == "mlx"
    assert picked({"mlx": 1}) == "mlx-2"
    assert picked({"mlx": 1, "mlx-2": 2}) == "mlx"  # not ollama: it has the same GPU
    assert picked({"ollama": 1}) == "mlx-2"


def test_pick_passes_over_the_ill_and_those_without_the_model():
    ill = replace(ALL[0], healthy=False)
    assert picked({}, (ill, *ALL[1:])) == "mlx-2"
    assert picked({"mlx-2": 9}, (ill, *ALL[1:])) == "ollama"
    assert picked({}, (replace(ALL[0], models=frozenset()),)) is None
    assert picked({}, mlx=failed(3)) == "mlx-2"
