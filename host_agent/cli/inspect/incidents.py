"""`vestal incidents`: list what failed, why, and what was done; for one incident, also show its journal
lines.

The incidents come from this home's agent or, if it does not answer, from the journal's file.
"""

import argparse
import json
import sqlite3
import sys
import time
from typing import Any

from host_agent.agent_client import AgentClient
from host_agent.cli.logs.since import parse_since
from host_agent.cli.screen.styled import printable
from host_agent.cli.table import Cell, Column, print_table
from host_agent.errors import HostAgentError, InvalidOption
from host_agent.incidents import as_json, entries_in_file, incidents_in_file, local_clock, newest_of
from host_agent.incidents.story import duration
from vestal.config import Config

MANY = 20
TEXT = Column(wraps=True)


def run(options: argparse.Namespace, config: Config) -> int:
    if options.id is None:
        _show_list(options, _newest(options, config))
    else:
        _show_one(options, _one(options.id, config))
    return 0


def _newest(options: argparse.Namespace, config: Config) -> list[dict[str, Any]]:
    since, limit = _since(options.since), _limit(options)
    client = AgentClient(config)
    if client.own_agent_answers():
        incidents: list[dict[str, Any]] = client.get(f"/incidents?limit={limit}&since={since}")["incidents"]
        return incidents
    found = newest_of(_of_file(config), limit, since)
    return [as_json(incident, local_clock, time.time()) for incident in found]


def _one(incident_id: int, config: Config) -> dict[str, Any]:
    """Return the incident with this id as JSON, with its journal lines in `entries`. It comes from this
    home's agent or, if it does not answer, from the journal's file.

    Raises HostAgentError if there is no such incident, or if the journal's file is needed but cannot be read.
    """
    client = AgentClient(config)
    if client.own_agent_answers():
        return client.get(f"/incidents/{incident_id}")
    found = next((each for each in _of_file(config) if each.id == incident_id), None)
    if found is None:
        raise HostAgentError(f"There is no incident {incident_id} in {config.home.journal_db}.")
    entries = entries_in_file(config.home.journal_db, found)
    return as_json(found, local_clock, time.time()) | {"entries": entries}


def _of_file(config: Config) -> list[Any]:
    path = config.home.journal_db
    if not path.exists():
        raise HostAgentError(f"There is no journal yet ({path}): `vestal up` starts everything.")
    print("The agent of this home does not answer; this is what its journal has.", file=sys.stderr)
    try:
        return incidents_in_file(path)
    except sqlite3.Error as error:
        raise HostAgentError(f"{path} cannot be read ({error}); `vestal doctor` says more.") from error


def _since(text: str | None) -> float:
    try:
        return 0.0 if text is None else parse_since(text, time.time())
    except ValueError as error:
        raise InvalidOption(f"--since: {error}") from None


def _limit(options: argparse.Namespace) -> int:
    if options.lines is not None:
        return max(0, int(options.lines))
    return MANY if options.since is None else 500


def _show_list(options: argparse.Namespace, incidents: list[dict[str, Any]]) -> None:
    if options.json:
        print(json.dumps({"incidents": incidents}, indent=2))
    elif not incidents:
        print("No incident: nothing has failed.")
    else:
        columns = (Column("id", align="right"), Column("lasted", align="right"), Column("what", wraps=True))
        print_table(columns, [[str(each["id"]), _state(each), each["sentence"]] for each in incidents])


def _show_one(options: argparse.Namespace, incident: dict[str, Any]) -> None:
    if options.json:
        print(json.dumps(incident, indent=2))
        return
    print_table([TEXT], [[(incident["title"], "bold")], [incident["sentence"]]])
    facts = [("lasted", _state(incident)), ("restarts", str(incident["restarts"]))]
    facts += [("causes", line) for line in incident["causes"]] + [("done", line) for line in incident["done"]]
    print()
    print_table([Column(), TEXT], _named_once(facts))
    print("\nThe journal's lines:")
    print_table([Column(), Column(), Column(), TEXT], [_line(entry) for entry in incident["entries"]])


def _state(incident: dict[str, Any]) -> Cell:
    """Return a table cell in the color of the incident's state: `open` and the duration so far; `notice` for
    an ended incident in which no service stopped working; for any other ended incident, the duration.
    """
    if incident["open"]:
        return f"open {duration(incident['duration_s'])}", "bold red"
    if incident["severity"] == "notice":
        return "notice", "dim"
    return duration(incident["duration_s"]), "yellow" if incident["requests"]["lost"] else "green"


def _named_once(facts: list[tuple[str, Cell]]) -> list[list[Cell]]:
    """Return a table row for each fact, a pair of name and text. The row's name is left out if the fact
    before has the same name.
    """
    names = [name for name, _ in facts]
    return [
        [(name if not at or name != names[at - 1] else "", "dim"), fact]
        for at, (name, fact) in enumerate(facts)
    ]


def _line(entry: dict[str, Any]) -> list[Cell]:
    cause = entry["cause"] or " ".join(f"{name}={value}" for name, value in entry["fields"].items())
    return [(local_clock(entry["ts"]), "dim"), entry["component"], entry["event"], printable(cause)]
