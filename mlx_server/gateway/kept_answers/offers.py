"""Offer answers to the gateways on other machines: answers that fail here, and new ones that another machine
can serve sooner or with less computation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Protocol

from mlx_server.gateway.answer_log import Accepted, AnswerLog, Record
from mlx_server.gateway.kept_answers.kept_answer import KeptAnswer
from mlx_server.gateway.kept_answers.rendering import CopyElsewhere
from mlx_server.gateway.kept_answers.runs import with_whole_head
from vestal.web.http_error import HttpError


class OtherMachines(Protocol):
    """The interface to the gateways on other machines. No method raises."""

    def may_serve(self, head: Accepted, error: HttpError) -> bool:
        """Return whether another machine might serve the request `head`, which fails here with `error`. This
        is so if the cause of the error is this machine, and the request did not come from another machine.
        """

    async def offer(self, records: Sequence[Record]) -> CopyElsewhere | None:
        """Ask the other machines to continue the answer that has these records in the answer log. Return a
        function that reads the rest of the answer from the machine that accepts it; None if no machine does.
        """

    async def place(self, head: Accepted) -> CopyElsewhere | None:
        """Ask another machine to serve a new request, if that machine is less busy than this one, or has
        computed much more of the conversation. `head` is the whole request, as the first record of its answer
        in the answer log.

        Return a function that reads the answer from that machine; None if the request runs here.
        """

    async def holding(self, head: Accepted, *, only_looks: bool = False) -> CopyElsewhere | None:
        """Return a function that reads the answer to the request `head` from the machine that has this
        answer; None if no other machine has it.

        If the result is None, the caller continues the answer on this machine; a caller that only wants to
        know whether another machine has the answer passes `only_looks`.
        """

    def stop_writing(self) -> None:
        """Write nothing more to the answer log, because the log is about to be closed."""


class MirroredElsewhere(Protocol):
    """Answers that other machines generate and whose records are copied to this machine. Each method
    continues such an answer here and returns it; None if there is no copy of its records."""

    async def find(self, answer_id: str) -> KeptAnswer | None: ...
    async def find_by_key(self, key_digest: str) -> KeptAnswer | None: ...


class Offers:
    """Asks the gateways on other machines to continue answers of this gateway, and to serve its new requests.
    `answer_log` holds the records from which another machine continues an answer.

    The attribute `others` is the interface to these gateways, None if there are none. `tasks` are the asyncio
    tasks that wait for the reply of another machine.
    """

    def __init__(self, answer_log: AnswerLog) -> None:
        self.others: OtherMachines | None = None
        self.tasks: set[asyncio.Task[None]] = set()
        self._log = answer_log

    @property
    def is_offering(self) -> bool:
        """Return whether another machine is being asked to continue an answer."""
        return bool(self.tasks)

    def offer_failed(self, answer: KeptAnswer, error: HttpError) -> None:
        """Start to ask the other machines to continue an answer that this gateway cannot finish because of
        `error`. Do nothing if none of them might serve such a request, if the request's body has not arrived,
        or if its client has left.

        Clients receive no further frames until the other machines have replied. If none accepts the answer,
        the clients then receive the frames that were held back and, if the request has failed here, the
        error.
        """
        may_be_offered = answer.body.is_whole.is_set() and not answer.client_left.is_set()
        if self.others is not None and may_be_offered and self.others.may_serve(answer.head, error):
            self._offer(answer, self.others)

    def offer_running(self, answers: Iterable[KeptAnswer], error: HttpError) -> None:
        """Start to ask the other machines to continue those of `answers` that are unfinished. `error` says
        why this gateway cannot finish them now; the other machines are asked only if one of them might serve
        a request that fails with this error. An answer that no other machine accepts continues here.
        """
        for answer in answers:
            is_movable = answer.is_accepted and not (answer.has_all_events or answer.is_offered)
            if is_movable and not answer.rendering.is_complete and answer.failure is None:
                self.offer_failed(answer, error)

    def _offer(self, answer: KeptAnswer, others: OtherMachines) -> None:
        answer.begin_offer()
        task = asyncio.ensure_future(self._settle(answer, others))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _settle(self, answer: KeptAnswer, others: OtherMachines) -> None:
        elsewhere: CopyElsewhere | None = None
        try:
            if records := await self._records_of(answer):
                elsewhere = await others.offer(records)
        finally:
            answer.settle(elsewhere)

    async def _records_of(self, answer: KeptAnswer) -> Sequence[Record] | None:
        """Return the records of a running answer from the answer log, or only its first record if the log has
        no file for it yet; None if the log has lost the records.
        """
        if not answer.is_written_down:
            return [answer.whole_head]
        records = await self._log.records(answer.id)
        return None if records is None else with_whole_head(records)

    async def place(self, answer: KeptAnswer) -> bool:
        """Have another machine serve a new request, if that machine is less busy than this one, or has
        computed much more of the conversation. Return whether another machine serves it.
        """
        if self.others is None:
            return False
        answer.begin_offer()
        elsewhere: CopyElsewhere | None = None
        try:
            elsewhere = await self.others.place(answer.whole_head)
        finally:
            answer.settle(elsewhere)
        return answer.elsewhere is not None
