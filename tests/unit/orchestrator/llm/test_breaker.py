"""The circuit breaker of a backend, and the choice of a backend. Pure."""

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


def test_backend_breaker_after_three_failures_in_a_row_is_open():
    assert failed(2).admits(0.0)
    assert failed(3).state is BackendBreakerState.OPEN
    assert not failed(3).admits(4.9)
    assert failed(2).call_succeeded().call_failed(0.0).state is BackendBreakerState.CLOSED


def test_half_open_backend_breaker_admits_a_single_trial():
    trial = failed(3).admitted(5.0)
    assert trial.state is BackendBreakerState.HALF_OPEN
    assert not trial.admits(6.0)
    assert trial.call_succeeded() == BackendBreaker()
    again = trial.call_failed(6.0)
    assert (again.state, again.until) == (BackendBreakerState.OPEN, 16.0)  # open for twice as long


def test_backend_breaker_whose_trial_was_cancelled_admits_another_trial():
    assert failed(3).admitted(5.0).abandoned(6.0).admits(6.0)
    assert BackendBreaker().abandoned(1.0) == BackendBreaker()


def test_backend_breaker_whose_trial_never_ends_admits_another_after_the_trial_time():
    trial = failed(3).admitted(5.0)
    assert trial.admits(5.0 + BackendBreakerPolicy().trial_s)


def test_backend_breaker_opened_by_failed_checks_is_closed_by_a_passed_check():
    gone = failed(3, by_call=False)
    assert not gone.wants_check(0.9)
    assert gone.wants_check(1.0)
    assert gone.check_passed() == BackendBreaker()


def test_backend_breaker_opened_by_failed_calls_stays_open_after_a_passed_check():
    ill = failed(3)
    assert ill.wants_check(0.0)
    assert ill.check_passed() == ill


def test_passed_check_resets_a_backend_breakers_missed_checks_but_not_its_failed_calls():
    breaker = failed(2, by_call=False).check_passed().check_failed(9.0)
    assert (breaker.state, breaker.missed) == (BackendBreakerState.CLOSED, 1)
    assert (
        failed(2).check_passed().call_failed(0.0).state is BackendBreakerState.OPEN
    )  # a passed check does not reset failed calls


def test_open_backend_breaker_is_not_prolonged_by_further_failed_calls():
    assert failed(9).until == failed(3).until


@given(st.lists(st.tuples(st.floats(0, 30), st.booleans(), st.booleans()), max_size=80))
def test_backend_breaker_admits_one_trial_at_a_time_and_blocks_calls_no_longer_than_the_maximum_open_time(
    steps: list[tuple[float, bool, bool]],
):
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


def test_first_host_of_a_backend_kind_has_no_number_in_its_name_and_later_hosts_have_one():
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


def test_backend_choice_takes_the_least_loaded_machine_and_on_it_mlx_rather_than_ollama():
    assert picked({}) == "mlx"
    assert picked({"mlx": 1}) == "mlx-2"
    assert picked({"mlx": 1, "mlx-2": 2}) == "mlx"  # not ollama, which shares the GPU of mlx
    assert picked({"ollama": 1}) == "mlx-2"


def test_backend_choice_excludes_backends_that_are_unhealthy_lack_the_model_or_have_an_open_breaker():
    ill = replace(ALL[0], healthy=False)
    assert picked({}, (ill, *ALL[1:])) == "mlx-2"
    assert picked({"mlx-2": 9}, (ill, *ALL[1:])) == "ollama"
    assert picked({}, (replace(ALL[0], models=frozenset()),)) is None
    assert picked({}, mlx=failed(3)) == "mlx-2"
