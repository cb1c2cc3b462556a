"""Incidents keep their invariants for any order of events, any times between them, and any fields."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from host_agent.incidents.events import EFFECTS, INCIDENT_EVENTS
from host_agent.incidents.fold import IncidentFold, fold
from host_agent.incidents.incident import Incident
from host_agent.incidents.story import as_json

SERVICES = ["agent", "mlx_server", "mlx_engine", "ollama", "orchestrator", "worker"]
GAPS_S = st.one_of(st.floats(0, 30), st.floats(0, 90_000), st.floats(-90_000, 0))  # the clock may be set back


def shown(incidents: list[Incident], now: float) -> list[dict[str, Any]]:
    return [as_json(incident, str, now) for incident in incidents]


class AnyJournal(RuleBasedStateMachine):
    """Lets services die, restart, stop and be found healthy in random order, including impossible ones."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[dict[str, Any]] = []
        self.fold, self.ts = IncidentFold(), 1_000_000.0

    def write(self, component: str, event: str, **fields: Any) -> None:
        entry = {"seq": len(self.entries) + 1, "ts": self.ts, "component": component, "event": event}
        entry |= {"cause": "because", "fields": fields}
        self.entries.append(entry)
        before = [copy.deepcopy(each) for each in self.fold.ledger.incidents]
        changed = {each.id for each in self.fold.add(entry)}
        after = {each.id: each for each in self.fold.ledger.incidents}
        for old in before:
            if old.id in after and old != after[old.id]:
                assert old.id in changed, "a change was not reported"
        assert {each.id for each in before} ^ after.keys() <= changed

    @rule(seconds=GAPS_S)
    def pass_time(self, seconds: float) -> None:
        self.ts = max(1.0, self.ts + seconds)

    @rule(service=st.sampled_from(SERVICES), signal=st.sampled_from([9, 11, None]), parked=st.integers(0, 3))
    def die_and_start(self, service: str, signal: int | None, parked: int) -> None:
        if parked:
            self.write("mlx_server", "requests_parked", count=parked, ids=[f"r{n}" for n in range(parked)])
        self.write(service, "child_exited", signal=signal, code=None)
        self.write(service, "child_restarting", attempt=1, delay_s=0.5)
        self.write(service, "child_started", restarts=1)

    @rule(service=st.sampled_from(SERVICES))
    def get_ready(self, service: str) -> None:
        self.write(service, "child_ready")

    @rule(service=st.sampled_from(SERVICES))
    def open_breaker(self, service: str) -> None:
        self.write(service, "child_exited", signal=None, code=1)
        self.write(service, "breaker_opened", open_s=60)

    @rule(service=st.sampled_from(SERVICES))
    def stop_by_hand(self, service: str) -> None:
        self.write(service, "stop_requested")
        self.write(service, "child_exited", code=0, signal=None)
        self.write(service, "child_stopped")
        assert not self.open_with(service), "what a person stopped is no fault"

    @rule(service=st.sampled_from(SERVICES), event=st.sampled_from(sorted(EFFECTS)))
    def write_any_event(self, service: str, event: str) -> None:
        self.write(
            service,
            event,
            attempt=1,
            count=2,
            id="r1",
            healthy=False,
            unhealthy=[service],
            faults={service: "x"},
        )

    @rule()
    def finish_healthy_pass(self) -> None:
        self.ts += 3  # a pass checks first, and is recorded later
        found: dict[str, Any] = {"healthy": True, "unhealthy": [], "faults": {}}
        self.write("recovery", "recovery_finished", **found, checked=SERVICES, checked_seq=len(self.entries))

    @rule()
    def everything_becomes_ready(self) -> None:
        self.write("agent", "disk_writable_again")
        for service in SERVICES:
            self.write(service, "child_ready")
        self.finish_healthy_pass()
        assert not [each for each in self.fold.ledger.incidents if each.open]

    def open_with(self, service: str) -> list[Incident]:
        return [each for each in self.fold.ledger.incidents if service in each.pending]

    @invariant()
    def fold_of_all_is_the_fold_of_each(self) -> None:
        if len(self.entries) % 7 == 0:
            assert shown(fold(self.entries), self.ts) == shown(self.fold.ledger.incidents, self.ts)

    @invariant()
    def no_service_is_in_two_open_incidents(self) -> None:
        pending = [service for each in self.fold.ledger.incidents for service in each.pending]
        assert len(pending) == len(set(pending))

    @invariant()
    def incidents_are_ordered_and_whole(self) -> None:
        incidents = self.fold.ledger.incidents
        ids = [each.id for each in incidents]
        assert ids == sorted(set(ids))
        for each in shown(incidents, self.ts):
            assert each["duration_s"] >= 0
            assert each["open"] == (each["ended_at"] is None)
            assert each["sentence"].endswith(".") and each["title"] and each["services"]
            requests = each["requests"]
            assert 0 <= requests["lost"] + requests["continued"] <= requests["waited"]
        for incident in incidents:
            assert incident.parts, "an incident is about a service"
            assert incident.open == bool(incident.pending)
            assert incident.first_seq <= incident.last_seq


AnyJournal.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAnyJournal = AnyJournal.TestCase

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
NUMBERS = ["attempt", "booted_at", "checked_seq", "code", "count", "incident", "open_s", "signal", "slept_s"]
OTHERS = ["boot_id", "checked", "faults", "healthy", "id", "ids", "judgement", "over", "reason", "remedy"]
OTHERS += ["stopped_by", "unhealthy"]
FIELDS = st.dictionaries(st.sampled_from([*NUMBERS, *OTHERS]), ANYTHING, max_size=6)
ENTRY = st.fixed_dictionaries(
    {"event": st.one_of(st.sampled_from(sorted(INCIDENT_EVENTS)), ANYTHING)},
    optional={
        "seq": ANYTHING,
        "ts": ANYTHING,
        "component": st.sampled_from(SERVICES) | ANYTHING,
        "cause": ANYTHING,
    }
    | {"fields": FIELDS | ANYTHING},
)


FAILURES = ("health_failed", "child_start_timed_out", "child_launch_failed", "child_exited")
MEANWHILE = ("stop_requested", "child_stopped", "agent_stopping", "recovery_finished", "child_started")
OUTCOMES = ("child_restarting", "breaker_opened", "child_gave_up", "remedy_applied", "restart_failed")
LIFE = st.tuples(
    st.sampled_from(FAILURES),
    st.sampled_from(("mlx_server", "mlx_engine")),
    st.sampled_from(MEANWHILE),
    st.sampled_from((0.0, 5.0, 30.0)),
    st.sampled_from(OUTCOMES),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(LIFE, min_size=1, max_size=4))
def test_incidents_of_failures_with_any_event_before_their_outcome_have_a_part_and_a_title(lives):
    """An engine that hung and was stopped, and whose successor died, once made an incident without a part.
    It has no title, so that GET /incidents failed, and the next agent could not start.
    """
    folded, ts, seq = IncidentFold(), 1000.0, 0
    for failure, service, meanwhile, gap_s, outcome in lives:
        for component, event in (("mlx_engine", failure), (service, meanwhile), ("mlx_engine", outcome)):
            fields = {"attempt": 1, "healthy": True, "open_s": 60}
            seq, ts = seq + 1, ts + gap_s
            folded.add({"seq": seq, "ts": ts, "component": component, "event": event, "fields": fields})
            for incident in folded.ledger.incidents:
                assert incident.parts
                assert incident.open == bool(incident.pending)
                assert as_json(incident, str, ts)["title"]


@settings(max_examples=150, deadline=None)
@given(st.lists(ENTRY, max_size=25))
def test_deriving_incidents_from_arbitrary_journal_entries_never_fails_or_gives_a_negative_duration(entries):
    for each in shown(fold(entries), 0.0):
        assert each["duration_s"] >= 0
