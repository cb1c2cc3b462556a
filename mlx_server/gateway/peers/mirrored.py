"""Copies of the answers that run on other machines, which store the copies here in case they die. Pure.

Twice a second, a machine sends the size of the records of each answer that runs on it. The reply says from
which offset on the records are wanted. A machine that has sent nothing for a while counts as dead, and its
answers are finished here.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from mlx_server.gateway.answer_log import Accepted, read_records

MAX_BYTES = 64 * 1024 * 1024
"""How many bytes are stored for all machines together. Answers beyond this limit are not mirrored."""
_PUT_BACK = ""
"""Answers that were put back are stored under this name, which no machine has. Nothing is heard from it, so
`take_of_dead` returns these answers again."""


class MirrorBatch(msgspec.Struct):
    """A message from a machine that mirrors its answers.

    `origin` is the machine's name. `sizes` are the sizes of the answers' records in bytes, by answer id.
    `parts` are parts of these records, as (answer id, offset, bytes).
    """

    origin: str
    sizes: dict[str, int]
    parts: list[tuple[str, int, bytes]] = []


class MirrorReply(msgspec.Struct):
    """The reply to a `MirrorBatch`, from the machine that stores the copies. `want` has an entry for each
    answer of which that machine wants more records. It maps the answer's id to the number of bytes of the
    answer's records that the machine has already, which is the offset of the first byte that it wants.
    """

    want: dict[str, int]


@dataclass
class _Answer:
    data: bytearray = field(default_factory=bytearray)
    key_digest: str | None = None


@dataclass
class _Origin:
    heard_at: float
    answers: dict[str, _Answer] = field(default_factory=dict)


class MirroredAnswers:
    """Stores copies of the unfinished answers of other machines, so that this machine can finish them if one
    of those machines dies. All copies together take at most `max_bytes`; records beyond that are neither
    requested nor stored. Times are monotonic seconds.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._total_bytes = 0
        self._origins: dict[str, _Origin] = {}

    @property
    def total_bytes(self) -> int:
        """Return the size of all mirrored records in bytes."""
        return self._total_bytes

    def receive(self, batch: MirrorBatch, have: Container[str], now: float) -> MirrorReply:
        """Store the records that a machine has sent, and return which ones it should send next. Delete the
        copies of answers that the machine does not list any more.

        `have` are the ids of the answers that this gateway runs or has in its own log; copies of these are
        deleted and not requested. `now` is the time of receipt, from which `take_of_dead` measures the
        silence of the machine.
        """
        origin = self._origins.setdefault(batch.origin, _Origin(now))
        origin.heard_at = now
        for answer_id in [each for each in origin.answers if each not in batch.sizes or each in have]:
            self._drop(origin, answer_id)
        put_back = self._origins.get(_PUT_BACK, _Origin(now))
        for answer_id in put_back.answers.keys() & batch.sizes.keys():  # the machine is back, and runs them
            self._drop(put_back, answer_id)
        for answer_id, offset, data in batch.parts:
            if answer_id in batch.sizes and answer_id not in have:
                self._add(origin.answers.setdefault(answer_id, _Answer()), offset, data)
        if not origin.answers and not batch.sizes:
            del self._origins[batch.origin]
        return MirrorReply(self._wanted(origin, batch.sizes, have))

    def _wanted(self, origin: _Origin, sizes: Mapping[str, int], have: Container[str]) -> dict[str, int]:
        room_bytes = self._max_bytes - self._total_bytes
        wanted: dict[str, int] = {}
        for answer_id, size_bytes in sizes.items():
            answer = origin.answers.get(answer_id)
            start = len(answer.data) if answer else 0
            if answer_id not in have and 0 < size_bytes - start <= room_bytes:
                wanted[answer_id] = start
                room_bytes -= size_bytes - start
        return wanted

    def _add(self, answer: _Answer, offset: int, data: bytes) -> None:
        new = data[len(answer.data) - offset :] if offset <= len(answer.data) else b""
        if self._total_bytes + len(new) > self._max_bytes:
            return
        if not answer.data:
            answer.key_digest = _key_digest(new)
        answer.data += new
        self._total_bytes += len(new)

    def take(self, answer_id: str) -> bytes | None:
        """Remove an answer, and return its records; None if the answer is not mirrored here."""
        for origin in self._origins.values():
            if answer_id in origin.answers:
                return self._drop(origin, answer_id)
        return None

    def put_back(self, answer_id: str, data: bytes, now: float) -> None:
        """Store again `data`, the records of an answer that `take` or `take_of_dead` has returned, because
        the answer cannot be continued yet.

        The records are treated as if a machine had sent them and then fallen silent at `now` or earlier, so
        that `take_of_dead` will return them again. If a machine lists the answer in a `MirrorBatch` before
        then, the answer runs on that machine, and the records stored here are deleted.
        """
        origin = self._origins.setdefault(_PUT_BACK, _Origin(now))
        self._add(origin.answers.setdefault(answer_id, _Answer()), 0, data)

    def id_of_key(self, key_digest: str) -> str | None:
        """Return the id of the answer that was begun with this idempotency key; None if there is none."""
        for origin in self._origins.values():
            for answer_id, answer in origin.answers.items():
                if answer.key_digest == key_digest:
                    return answer_id
        return None

    def forgive_silence(self, now: float, gap_s: float) -> None:
        """Leave the last `gap_s` seconds out of the silence of each machine, because this process could not
        receive anything in this time.
        """
        for origin in self._origins.values():
            origin.heard_at = min(now, origin.heard_at + gap_s)

    def take_of_dead(self, now: float, after_s: float) -> Sequence[bytes]:
        """Remove all machines that have sent nothing for `after_s` seconds, and return the records of their
        answers.
        """
        dead = [name for name, origin in self._origins.items() if now - origin.heard_at >= after_s]
        taken: list[bytes] = []
        for name in dead:
            origin = self._origins.pop(name)
            taken += [self._drop(origin, answer_id) for answer_id in list(origin.answers)]
        return taken

    def _drop(self, origin: _Origin, answer_id: str) -> bytes:
        data = bytes(origin.answers.pop(answer_id).data)
        self._total_bytes -= len(data)
        return data


def _key_digest(data: bytes) -> str | None:
    """Return the digest of the idempotency key from the first of the answer-log records in `data`; None if
    the request had no such key or the record is incomplete.
    """
    records, _ = read_records(data)
    return records[0].key_digest if records and isinstance(records[0], Accepted) else None
