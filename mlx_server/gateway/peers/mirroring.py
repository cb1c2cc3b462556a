"""Mirror the answers that run here to a peer, and finish here the answers of a machine that has died."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from mlx_server.gateway.answer_log import Accepted, AnswerLog, Ended, Event, Referenced, Silence, read_records
from mlx_server.gateway.kept_answers.keeper import AnswerKeeper
from mlx_server.gateway.kept_answers.kept_answer import KeptAnswer
from mlx_server.gateway.kept_answers.runs import with_whole_head
from mlx_server.gateway.peers.mirrored import MirrorBatch, MirroredAnswers
from mlx_server.gateway.peers.passed_on import is_passed_on, marked
from mlx_server.gateway.peers.peer import Peer
from vestal.supervision import Clock
from vestal.web.http_error import HttpError

log = logging.getLogger(__name__)

MIRROR_S = 0.5
COPY_S, MAX_COPY_S = 0.25, 4.0
"""The shortest and the longest pause between two requests to a peer for the records of an answer that was
passed on to it. The pause grows while no records come."""
LOOK_S = 1.0
DEAD_AFTER_S = 10.0
"""If a machine has mirrored nothing for this long, its answers are finished here."""
STOOD_STILL_S = 5.0
"""If the pause before a look for dead machines takes longer than this, this process stood still."""
MAX_PART_BYTES, MAX_PARTS_BYTES = 1024 * 1024, 8 * 1024 * 1024


async def mirror(keeper: AnswerKeeper, peer: Callable[[], Peer | None], origin: str, clock: Clock) -> None:
    """Send the records that the answer log of `keeper` has of the answers running here to the first living
    peer. Repeat this every MIRROR_S seconds, until cancelled or until that answer log is closed. An
    unforeseen error is logged once, and the records are sent again later.

    `peer` returns that peer, or None if no peer lives. `origin` names this gateway to the peer, and must be
    the same after a restart: the peer finishes the answers of an origin from which no messages come.
    """
    had_any = is_error_logged = False
    while True:
        await clock.sleep(MIRROR_S)
        if keeper.is_closed:
            return
        sizes = _sizes(keeper)
        target = peer()
        if target is None or not (sizes or had_any):
            continue
        try:
            await _mirror_to(target, keeper, origin, sizes)
            had_any = bool(sizes)
        except Exception:
            if not is_error_logged:
                is_error_logged = True
                log.exception("The answers that run here could not be mirrored to %s", target.url)


async def _mirror_to(target: Peer, keeper: AnswerKeeper, origin: str, sizes: dict[str, int]) -> None:
    """Mirror the running answers to `target`: send `sizes`, the size in bytes of each answer's records by
    answer id, and then up to MAX_PARTS_BYTES of the records that the reply asks for, from the answer log of
    `keeper`. `origin` is the name of this gateway, under which `target` stores the records. If `target` does
    not reply in time, nothing is raised, and its next reply asks for the missing records.
    """
    wanted = await target.mirror(MirrorBatch(origin, sizes))
    if wanted and (parts := await _parts(keeper, wanted)):
        await target.mirror(MirrorBatch(origin, sizes, parts))


def _sizes(keeper: AnswerKeeper) -> dict[str, int]:
    """Return, by answer id, the size in bytes of an answer's records in this gateway's answer log, for each
    unfinished answer that this gateway computes for a client of its own. Left out are answers that another
    gateway has passed on to this one, answers that another gateway continues, and answers whose client has
    left.
    """
    return {
        answer.id: keeper.log.size_bytes(answer.id)
        for answer in keeper.running
        if answer.is_accepted
        and not (answer.client_left.is_set() or answer.is_detached or is_passed_on(answer.head))
        and keeper.log.status(answer.id) == "open"
    }


async def _parts(keeper: AnswerKeeper, wanted: Mapping[str, int]) -> list[tuple[str, int, bytes]]:
    parts: list[tuple[str, int, bytes]] = []
    room_bytes = MAX_PARTS_BYTES
    for answer_id, start in wanted.items():
        data = await keeper.log.data(answer_id) or b""
        part = data[start : start + min(room_bytes, MAX_PART_BYTES if start else room_bytes)]
        if part:
            parts.append((answer_id, start, part))
            room_bytes -= len(part)
        if room_bytes <= 0:
            break
    return parts


async def copy_records(answer_log: AnswerLog, peer: Peer, answer_id: str, offset: int, clock: Clock) -> None:
    """Copy into this gateway's log the records that `peer` writes for an answer that was passed on to it,
    until the answer has ended. If the peer is lost, this gateway can continue the answer from the copied
    records. A peer that does not reply is asked again, without an error.

    `offset` is the size in bytes of the records that this gateway sent to the peer; the records that the peer
    has written itself follow them. `clock` times the pauses between two requests to the peer.
    """
    wait_s = COPY_S
    while answer_log.status(answer_id) == "open":
        await clock.sleep(wait_s)
        data = await peer.records(answer_id, offset)
        records, size_bytes = read_records(data or b"")
        wait_s = COPY_S if records else min(2 * wait_s, MAX_COPY_S)
        offset += size_bytes
        for record in records:
            if isinstance(record, Event | Silence | Referenced):
                answer_log.append(answer_id, record)
            elif isinstance(record, Ended):
                answer_log.ended(answer_id)


class TakeOverMirrored:
    """Continues answers of other machines on this machine, from the copies of their records in `mirrored`:
    the answers of dead machines, and answers that a client asks for here.

    `keeper` runs the continued answers. `emit` writes an event about each of them.
    """

    def __init__(
        self, mirrored: MirroredAnswers, keeper: AnswerKeeper, clock: Clock, emit: Callable[..., None]
    ) -> None:
        self._mirrored = mirrored
        self._keeper = keeper
        self._clock = clock
        self._emit = emit

    async def run(self) -> None:
        """Finish the answers of dead machines, until cancelled or until this gateway's answer log is closed.
        The log is closed when a new gateway process replaces this one. From then on, the other machines
        mirror their answers to the new process, which finishes them if need be.

        If this process stood still (SIGSTOP, a sleeping or swapping machine), it received nothing meanwhile,
        and the messages of living machines still wait in its sockets. So the time that it stood still does
        not count as silence of the other machines.
        """
        while True:
            began_at = self._clock.now()
            await self._clock.sleep(LOOK_S)
            if self._keeper.is_closed:
                return
            slept_s = self._clock.now() - began_at
            if slept_s > STOOD_STILL_S:
                self._mirrored.forgive_silence(self._clock.now(), slept_s)
                continue
            for data in self._mirrored.take_of_dead(self._clock.now(), DEAD_AFTER_S):
                try:
                    await self._go_on(data, "its machine does not answer any more")
                except HttpError as error:  # the log cannot be written, which the log reports itself
                    log.warning("An answer of a machine that is dead is not continued: %s", error)
                except Exception:  # the answers that follow are finished nevertheless
                    log.exception("An answer of a machine that is dead could not be continued")

    async def find(self, answer_id: str) -> KeptAnswer | None:
        """Continue the answer with this id here, because a client asks for it, and return it; None if it is
        not mirrored here. Raises HttpError if the answer cannot be written to the log.
        """
        data = self._mirrored.take(answer_id)
        return None if data is None else await self._go_on(data, "a client asks for it here")

    async def find_by_key(self, key_digest: str) -> KeptAnswer | None:
        """Find the mirrored answer to the request whose idempotency key has the digest `key_digest`. Continue
        this answer on this machine, because a client asks for it, and return it. Return None if no such
        answer is mirrored here. Raises HttpError if the answer cannot be written to this gateway's log.
        """
        answer_id = self._mirrored.id_of_key(key_digest)
        return None if answer_id is None else await self.find(answer_id)

    async def _go_on(self, data: bytes, cause: str) -> KeptAnswer | None:
        records, _ = read_records(data)  # in one step: nobody else finds the answer in neither place
        head = records[0] if records else None
        if not isinstance(head, Accepted) or self._keeper.has(head.id):
            return None
        try:
            answer = await self._keeper.take_over(marked(with_whole_head(records)))
        except HttpError:  # the log cannot be written at present
            self._mirrored.put_back(head.id, data, self._clock.now())
            raise
        self._emit("request_taken_over", cause, id=head.id)
        return answer
