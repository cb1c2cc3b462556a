"""The index of the answers in the log, by id, idempotency key and age, and the choice of the answers to
delete. Pure.

Ages are differences of monotonic time, so that setting the clock does not delete anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal

from mlx_server.gateway.answer_log.file_names import FileName

UNFINISHED_KEEP_S = 24 * 3600.0
"""How long a running answer is kept, counted from when it was accepted or when this process took it up."""

MAX_EXPIRED_IDS = 1000
"""How many ids of deleted answers are remembered. Only the latest ones are."""


@dataclass(eq=False)
class Entry:
    """An answer in the log. `since_s` is the monotonic time at which its current state began, which is when
    it was accepted, suspended, resumed or ended.
    """

    name: FileName
    size_bytes: int
    since_s: float
    suspended: bool = False

    @property
    def running(self) -> bool:
        return not (self.name.ended or self.suspended)


class Index:
    """Finds answers by their id and by the digest of their idempotency key, and chooses the answers to
    delete.

    `keep_s` is how long an ended or suspended answer is kept. `max_bytes` and `max_answers` limit the whole
    log.
    """

    def __init__(self, keep_s: float, max_bytes: int, max_answers: int) -> None:
        self.total_bytes = 0
        self._keep_s, self._max_bytes, self._max_answers = keep_s, max_bytes, max_answers
        self._unfinished: dict[str, Entry] = {}
        self._ended: dict[str, Entry] = {}  # the oldest end first
        self._by_key: dict[str, str] = {}
        self._expired: dict[str, None] = {}  # the latest last

    def __len__(self) -> int:
        return len(self._unfinished) + len(self._ended)

    def get(self, answer_id: str) -> Entry | None:
        """Return the answer's entry; None if the answer is not in the log."""
        return self._unfinished.get(answer_id) or self._ended.get(answer_id)

    def add(self, entry: Entry) -> None:
        """Add an answer whose id is not in the log. Unfinished answers must be added in the order of their
        acceptance, and ended answers in the order of their ends. If several answers have the same idempotency
        key, `id_of_key` finds the one that was added last.
        """
        (self._ended if entry.name.ended else self._unfinished)[entry.name.id] = entry
        self.total_bytes += entry.size_bytes
        if entry.name.key is not None:
            self._by_key[entry.name.key] = entry.name.id

    def grow(self, entry: Entry, size_bytes: int) -> None:
        """Record that `size_bytes` more bytes were appended to an answer."""
        entry.size_bytes += size_bytes
        self.total_bytes += size_bytes

    def suspend(self, entry: Entry, suspended: bool, now: float) -> None:
        """Record that an answer is suspended because its client left, or, if `suspended` is False, that it is
        resumed.
        """
        if entry.suspended != suspended:
            entry.suspended, entry.since_s = suspended, now

    def end(self, entry: Entry, now: float) -> None:
        """Record that the answer of `entry` has ended at `now`, and set `entry.name` to the name of an ended
        answer's file. The file itself is not renamed here (see `Writer.end`).
        """
        entry.name, entry.suspended, entry.since_s = entry.name.as_ended(), False, now
        self._ended[entry.name.id] = self._unfinished.pop(entry.name.id)

    def remove(self, entry: Entry) -> None:
        """Remove an answer from the index."""
        del (self._ended if entry.name.ended else self._unfinished)[entry.name.id]
        self.total_bytes -= entry.size_bytes
        key = entry.name.key
        if key is not None and self._by_key.get(key) == entry.name.id:
            del self._by_key[key]

    def id_of_key(self, key: str) -> str | None:
        """Return the id of the last answer that was added with `key`, the digest of an idempotency key; None
        if the log has no such answer.
        """
        return self._by_key.get(key)

    def unfinished(self) -> list[str]:
        """Return the ids of the answers that have not ended, in the order of their acceptance."""
        return list(self._unfinished)

    def status(self, answer_id: str) -> Literal["open", "ended", "expired"] | None:
        """Return the state of an answer: `expired` if the answer was deleted, None if its id is unknown."""
        entry = self.get(answer_id)
        if entry is not None:
            return "ended" if entry.name.ended else "open"
        return "expired" if answer_id in self._expired else None

    def remember_expired(self, ids: Iterable[str]) -> None:
        """Remember the ids of answers that were deleted. Only the latest MAX_EXPIRED_IDS ids are
        remembered.
        """
        self._expired |= dict.fromkeys(ids)
        while len(self._expired) > MAX_EXPIRED_IDS:
            del self._expired[next(iter(self._expired))]

    def expired_ids(self) -> list[str]:
        """Return the remembered ids of answers that were deleted, the latest last."""
        return list(self._expired)

    def expired(self, now: float) -> list[Entry]:
        """Return the answers whose time in the log has run out at the monotonic time `now`. An ended or
        suspended answer is kept for `keep_s` seconds, and a running one for `keep_s` or UNFINISHED_KEEP_S
        seconds, whichever is longer. The time counts from when the answer's current state began
        (`Entry.since_s`).
        """

        def is_old(entry: Entry) -> bool:
            keep_s = max(UNFINISHED_KEEP_S, self._keep_s) if entry.running else self._keep_s
            return now - entry.since_s >= keep_s

        return [*takewhile(is_old, self._ended.values()), *filter(is_old, self._unfinished.values())]

    def surplus(self) -> list[Entry]:
        """Return the answers to delete so that the log is within its limits. Ended answers come first, in the
        order of their ends; then suspended answers; then running answers, the latest first, because the older
        ones have cost more computation.
        """
        surplus: list[Entry] = []
        if self.total_bytes <= self._max_bytes and len(self) <= self._max_answers:
            return surplus
        total_bytes, count = self.total_bytes, len(self)
        candidates = self._by_eviction()
        while total_bytes > self._max_bytes or count > self._max_answers:
            entry = next(candidates)
            surplus.append(entry)
            total_bytes, count = total_bytes - entry.size_bytes, count - 1
        return surplus

    def _by_eviction(self) -> Iterator[Entry]:
        yield from self._ended.values()
        suspended = [entry for entry in self._unfinished.values() if entry.suspended]
        yield from sorted(suspended, key=lambda entry: entry.since_s)
        yield from (entry for entry in reversed(self._unfinished.values()) if entry.running)
