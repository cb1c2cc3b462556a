"""Incidents: what failed, why, what was done, and which requests were affected. They are derived from the
journal's events.
"""

from host_agent.incidents.fold import IncidentFold, fold
from host_agent.incidents.incident import Incident
from host_agent.incidents.incidents import (
    Incidents,
    entries_in_file,
    incidents_in_file,
    local_clock,
    newest_of,
)
from host_agent.incidents.story import as_json, sentence

__all__ = [
    "Incident",
    "IncidentFold",
    "Incidents",
    "as_json",
    "entries_in_file",
    "fold",
    "incidents_in_file",
    "local_clock",
    "newest_of",
    "sentence",
]
