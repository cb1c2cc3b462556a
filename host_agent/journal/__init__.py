"""The journal: a bounded list of events in SQLite, in the order in which they happened."""

from host_agent.journal.database import (
    COLUMNS,
    connect_read_only,
    damaged_copies,
    event_from_row,
    fields_from,
    find_damage,
)
from host_agent.journal.journal import PRUNE_EVERY, Journal

__all__ = [
    "COLUMNS",
    "PRUNE_EVERY",
    "Journal",
    "connect_read_only",
    "damaged_copies",
    "event_from_row",
    "fields_from",
    "find_damage",
]
