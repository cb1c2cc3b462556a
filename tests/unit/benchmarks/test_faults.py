"""The fault table: the outcome and the figures of each try, from the times of events and requests."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.faults import run, table
from benchmarks.faults.fault import Fault, Group, Made
from benchmarks.faults.outcomes import (
    A_PERSON,
    NOBODY,
    SHORTEST_OUTAGE_S,
    Entry,
    Outcome,
    Request,
    Try,
    outcome,
)
from benchmarks.figures import Figure

FAULT_AT, UNTIL = 100.0, 160.0
EACH_S, TAKES_S = 0.3, 0.2


def requests(begins: Sequence[float], ends: Sequence[float], **more: Any) -> list[Request]:
    return [Request("mlx", a, b, **({"answered": True} | more)) for a, b in zip(begins, ends, strict=True)]


def steady(begin: float, end: float) -> list[Request]:
    """Return probes at fixed times, all of which are answered by the end."""
    begins = [begin + EACH_S * n for n in range(int((end - begin - TAKES_S) / EACH_S))]
    return requests(begins, [at + TAKES_S for at in begins])


def observed(*found: Request, entries: Sequence[Entry] = (), until: float = UNTIL, **more: Any) -> Try:
    return Try(
        "mlx", FAULT_AT - 4, FAULT_AT, until, [*steady(FAULT_AT - 4, FAULT_AT), *found], entries, **more
    )


def exited(entry: Entry) -> bool:
    return entry.event == "child_exited"


# --- served again ---


def test_recovery_time_without_an_outage_is_the_response_time_of_the_first_request_after_the_fault():
    got = outcome(observed(*steady(FAULT_AT, UNTIL)), exited)
    assert got.served_again_s == pytest.approx(TAKES_S)


@given(outage_s=st.floats(0.01, 50))
def test_recovery_time_ends_with_the_first_answer_to_a_request_sent_after_the_fault(outage_s: float):
    back = FAULT_AT + outage_s
    waited = requests([FAULT_AT + 0.1 * n for n in range(6)], [back + 0.1 * n for n in range(1, 7)])
    got = outcome(observed(*waited, *steady(back, UNTIL)), exited)
    assert got.served_again_s == pytest.approx(outage_s + 0.1)


@given(quiet_s=st.floats(0.0, 10.0), outage_s=st.floats(SHORTEST_OUTAGE_S + 1, 40))
def test_recovery_time_of_an_outage_that_begins_after_the_fault_is_the_outage_length(
    quiet_s: float, outage_s: float
):
    """A full disk or a lack of memory interrupts a service only when it next has to write something."""
    stops = FAULT_AT + 1 + quiet_s
    before = steady(FAULT_AT, stops)
    got = outcome(observed(*before, *steady(stops + outage_s, UNTIL)), exited)
    assert got.served_again_s == pytest.approx(stops + outage_s + TAKES_S - before[-1].ended_at)


@given(begin_s=st.floats(0, 20), outage_s=st.floats(0, 30))
def test_recovery_time_for_any_outage_ends_no_earlier_than_the_first_answer_after_the_fault(
    begin_s: float, outage_s: float
):
    found = [*steady(FAULT_AT, FAULT_AT + begin_s), *steady(FAULT_AT + begin_s + outage_s, UNTIL)]
    got = outcome(observed(*found), exited)
    assert got.served_again_s is not None
    first = min(each.ended_at for each in found) - FAULT_AT
    assert first - 1e-6 <= got.served_again_s <= first + 2 * EACH_S + outage_s + TAKES_S


def test_recovery_time_ignores_an_answer_that_was_under_way_at_the_fault():
    under_way = requests([FAULT_AT - 0.1], [FAULT_AT + 0.1])
    got = outcome(observed(*under_way, *steady(FAULT_AT + 5, UNTIL)), exited)
    assert got.served_again_s == pytest.approx(5 + TAKES_S)


def test_recovery_time_of_a_service_that_never_answers_again_is_none():
    assert outcome(observed(), exited).served_again_s is None
    got = outcome(observed(*steady(FAULT_AT, FAULT_AT + 10)), exited)
    assert got.served_again_s is None, "it served for a while and then no more"


def test_recovery_time_is_known_if_the_first_new_answer_arrives_after_the_observation_ends():
    """On a busy machine the last probes outlasted the observation, and the table wrongly said "never"."""
    found = [*steady(FAULT_AT, UNTIL - 4), *requests([UNTIL - 4], [UNTIL + 1])]
    got = outcome(observed(*found), exited)
    assert got.served_again_s == pytest.approx(UNTIL + 1 - found[-2].ended_at)


def test_gap_between_answers_as_long_as_the_gaps_before_the_fault_does_not_count_as_an_outage():
    slow = requests([90.0, 93.0, 96.0], [92.9, 95.9, 98.9])
    late = requests([101.0, 104.0], [103.9, 106.9])
    found = Try("mlx", 90.0, FAULT_AT, 108.0, [*slow, *late], ())
    assert outcome(found, exited).served_again_s == pytest.approx(3.9)


def test_recovery_time_counts_only_probes_of_the_watched_service():
    others = [Request("agent", 100.1, 100.2, True), Request("mlx", 100.1, 100.3, True, is_probe=False)]
    got = outcome(observed(*others, *steady(FAULT_AT + 5, UNTIL)), exited)
    assert got.served_again_s == pytest.approx(5 + TAKES_S)


# --- noticed, lost, acted ---


@given(noticed=st.lists(st.floats(0, 59), min_size=1), before=st.lists(st.floats(-50, -0.001)))
def test_detection_time_of_a_fault_ends_with_the_first_journal_event_after_it(
    noticed: list[float], before: list[float]
):
    entries = [Entry(FAULT_AT + s, "mlx_engine", "child_exited") for s in (*noticed, *before)]
    got = outcome(observed(entries=[*entries, Entry(FAULT_AT, "x", "other")]), exited)
    assert got.noticed_s == pytest.approx(min(noticed))


def test_detection_time_of_a_fault_without_a_journal_event_is_the_separately_observed_time_or_none():
    assert outcome(observed(), exited).noticed_s is None
    assert outcome(observed(noticed_at=FAULT_AT + 0.25), exited).noticed_s == pytest.approx(0.25)


@given(st.lists(st.tuples(st.floats(-3, 50), st.floats(0, 9), st.booleans(), st.integers(0, 3))))
def test_lost_and_cut_off_requests_are_counted_if_they_end_after_the_fault(
    found: list[tuple[float, float, bool, int]],
):
    made = [Request("mlx", FAULT_AT + a, FAULT_AT + a + b, ok, n, False) for a, b, ok, n in found]
    got = outcome(observed(*made), exited)
    touched = [each for each in made if each.ended_at >= FAULT_AT]
    assert got.lost == sum(not each.answered for each in touched)
    assert got.cut_offs == sum(each.cut_offs for each in touched)


def test_actors_of_a_repair_are_listed_once_each_in_order_of_action_and_a_helping_person_last():
    entries = [
        Entry(FAULT_AT + 3, "mlx_server", "answers_taken_up"),
        Entry(FAULT_AT + 1, "mlx_server", "child_restarting"),
        Entry(FAULT_AT + 2, "mlx_server", "child_restarting"),
        Entry(FAULT_AT - 1, "mlx_engine", "child_restarting"),
    ]
    assert outcome(observed(entries=entries[:3]), exited).actors == ("agent", "gateway")
    assert outcome(observed(entries=entries[3:]), exited, "Docker").actors == ("Docker",)
    assert outcome(observed(), exited).actors == (NOBODY,)
    helped = outcome(observed(entries=entries[1:2], had_help=True), exited)
    assert helped.actors == ("agent", A_PERSON) and helped.by_person
    assert outcome(observed(had_help=True), exited).actors == (A_PERSON,)


def test_agent_start_is_credited_to_the_watchdog_unless_the_agent_replaced_itself():
    new = Entry(FAULT_AT + 3, "agent", "agent_started")
    assert outcome(observed(entries=[new]), exited).actors == ("watchdog",)
    old = Entry(FAULT_AT + 1, "agent", "agent_replacing")
    assert outcome(observed(entries=[old, new]), exited).actors == ("agent",)


# --- figures and table ---

OUTCOMES = st.builds(
    Outcome,
    st.none() | st.floats(0, 200),
    st.none() | st.floats(0, 200),
    st.integers(0, 9),
    st.integers(0, 9),
    st.sampled_from([("gateway",), ("agent", "gateway"), (A_PERSON,), (NOBODY,)]),
)


@given(st.lists(OUTCOMES, min_size=1, max_size=25))
def test_fault_table_counts_every_try_and_shows_a_missing_recovery_time_as_never(tries: list[Outcome]):
    made = [f for n, got in enumerate(tries, 1) for f in table.figures("engine_kill", n, got)]
    head, rule, line = table.markdown(made).splitlines()[:3]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert head.count("|") == rule.count("|") == line.count("|") == 10
    assert cells[:2] == ["engine kill", str(len(tries))]
    assert cells[6] == str(sum(got.lost for got in tries))
    times = sorted(math.inf if got.served_again_s is None else got.served_again_s for got in tries)
    assert (cells[5] == "never") == math.isinf(times[-1]), "the p99 of at most 25 tries is the worst of them"
    assert (cells[4] == "never") == math.isinf(table.percentile(times, 0.5))


def test_fault_table_shows_why_a_fault_was_not_measured_and_omits_rows_of_other_benchmarks():
    found = [table.failure("container_kill", table.SERVED, 1, "no Docker engine answers")]
    other = Figure("serving/ttft", "vestal", 1.0)
    line = table.markdown([other, *found]).splitlines()[2]
    assert line.startswith("| container kill | 0 | not measured here: no Docker engine answers |")


def test_fault_table_counts_the_tries_in_which_each_actor_acted():
    both, one = (Outcome(1.0, 1.0, 0, 0, names) for names in (("agent", "Docker"), ("agent",)))
    made = [f for n, got in enumerate((both, one), 1) for f in table.figures("x", n, got)]
    assert table.markdown(made).splitlines()[2].endswith("| agent, Docker (1 of 2) |")


# --- resuming ---


def test_fault_injection_counts_as_done_when_its_last_measurement_is_stored_and_not_before():
    made = list(table.figures("engine_kill", 1, Outcome(0.1, None, 0, 0, ("gateway",))))
    again = list(table.figures("engine_kill", 2, Outcome(0.1, 0.5, 0, 0, ("gateway",))))
    for whole in range(len(again) + 1):
        done = run.done_tries([*made, *again[:whole], Figure("serving/ttft/cold", "vestal", 1.0)])
        assert done == {("engine_kill", 1)} | ({("engine_kill", 2)} if whole == len(again) else set())


def test_fault_that_this_machine_cannot_cause_is_logged_once_and_starts_no_services():
    def open_stack(first_port: int) -> Any:
        raise AssertionError("no stack is wanted")

    fault = Fault("container_kill", lambda stack: Made(0.0), exited)
    logged: list[Figure] = []
    group = Group((fault,), open_stack, lambda fault: "no Docker engine answers")
    run.run_faults(logged.append, [group], 20)
    assert [(each.row, each.failed) for each in logged] == [
        ("faults/container_kill/served_again_s", "no Docker engine answers")
    ]


def test_stack_is_replaced_once_a_fault_was_injected_into_it_as_often_as_its_group_allows(monkeypatch):
    """In one stack for all tries, Ollama's limit of five restarts an hour was measured, not the fault."""
    faults = tuple(Fault(name, lambda stack: Made(0.0), exited) for name in ("ollama_kill", "engine_kill"))
    stacks: list[list[str]] = []

    def open_stack(first_port: int) -> Any:
        stacks.append([])
        return contextlib.nullcontext(stacks[-1])

    def run_try(stack: Any, fault: Fault, draw: Any) -> Outcome:
        stack.append(fault.name)
        return Outcome(0.1, 0.5, 0, 0, ("agent",))

    monkeypatch.setattr(run, "run_try", run_try)
    run.run_faults(lambda figure: None, [Group(faults, open_stack, tries_per_stack=2)], 5)
    assert [len(stack) for stack in stacks] == [4, 4, 2]
    assert all(stack.count(fault.name) <= 2 for stack in stacks for fault in faults)
