"""Every event that the code can write into the journal has an entry in the table of effects."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from host_agent.incidents.events import EFFECTS, INCIDENT_EVENTS
from host_agent.incidents.fold import IncidentFold
from mlx_server.gateway import engine_events

REPO = Path(__file__).resolve().parents[4]
# The gateway's events that the agent records are listed below.
JOURNALED = ("vestal/supervision", "host_agent")
POSITION = {"record": 1, "Emit": 0, "_emit": 0, "_note": None}
COMPUTED = {
    # calls whose event is no literal -> the events that they can write
    "host_agent/services/service_control.py": {
        f"{action}_{what}" for action in ("start", "stop", "restart") for what in ("requested", "failed")
    },
    "host_agent/recovery/recovery_pass.py": {"only_a_reboot_helps"},
    "host_agent/upgrade/upgrades.py": set(),  # `_note` takes the event's name as the argument `event`
    "vestal/supervision/child.py": set(),  # passes on events of the lifecycle's Emit
    "vestal/supervision/handover/process_handover.py": set(),  # passes on events of the handover's Emit
}
"""Files that compute the name of an event. What they can write has to be listed by hand."""


def _constants(tree: ast.Module) -> dict[str, str]:
    return {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name) and isinstance(node.value.value, str)
    }


def _name_arguments(tree: ast.Module) -> Iterator[ast.expr]:
    """Yield, for each call that writes an event, the argument with the event's name."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        owner = ast.unparse(function.value) if isinstance(function, ast.Attribute) else ""
        if name == "record" and "journal" not in owner:
            continue
        if name == "emit" and owner.endswith("events"):
            yield node.args[1]  # the event is the argument after the component
        elif name in ("Emit", "_emit", "record") and len(node.args) > (at := POSITION[name] or 0):
            yield node.args[at]
        elif name == "_enqueue":
            yield node.args[2]
        yield from (keyword.value for keyword in node.keywords if keyword.arg == "event" and name == "_note")


def written_events() -> dict[str, str]:
    """Return the events that the source can write into the journal, each with a file that writes it."""
    found: dict[str, str] = {}
    for folder in JOURNALED:
        for path in (REPO / folder).rglob("*.py"):
            place, tree = str(path.relative_to(REPO)), ast.parse(path.read_text())
            constants = _constants(tree)
            for argument in _name_arguments(tree):
                if isinstance(argument, ast.Constant):
                    found[str(argument.value)] = place
                elif isinstance(argument, ast.Name) and argument.id in constants:
                    found[constants[argument.id]] = place
                elif place != "host_agent/journal/journal.py":
                    assert place in COMPUTED, (
                        f"{place} computes the name of an event: {ast.unparse(argument)}"
                    )
            found |= dict.fromkeys(COMPUTED.get(place, ()), place)
    return found


def test_every_journal_event_in_the_source_is_in_the_table_of_incident_effects():
    written = written_events()
    assert len(written) > 60, "the search finds too little"
    unknown = {event: place for event, place in written.items() if event not in EFFECTS}
    assert not unknown, f"say in host_agent/incidents/events.py what they do to incidents: {unknown}"
    passed_on = engine_events.ABOUT_REQUESTS - EFFECTS.keys()
    assert not passed_on, f"the gateway passes on what the table does not know: {passed_on}"


def test_every_journal_event_in_the_table_of_incident_effects_is_written_somewhere_in_the_source_code():
    of_other_programs = {"kill_requested", "kill_failed"}  # written for the kill button of the status page
    assert not EFFECTS.keys() - written_events().keys() - engine_events.ABOUT_REQUESTS - of_other_programs


def test_every_journal_event_that_affects_incidents_has_a_handler():
    assert IncidentFold().reads == INCIDENT_EVENTS
