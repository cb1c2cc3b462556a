"""A log for an answer that is written to the answer log only once it has ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mlx_server.gateway.answer_log.log import AnswerLog
from mlx_server.gateway.answer_log.no_log import NoLog
from mlx_server.gateway.answer_log.records import Accepted, Record, pack_record


class LogAtEnd(NoLog):
    """Holds the records of one answer in memory. When the answer has ended, writes them to `log` if
    `may_write` returns True at that time, and otherwise drops them.

    This is for an answer that cannot go on without its client's connection, such as one over a WebSocket. If
    the unfinished answer were in `log`, the next gateway would finish it, although no client could read it,
    or although the earlier gateway is still working on it.
    """

    def __init__(self, log: AnswerLog, may_write: Callable[[], bool]) -> None:
        super().__init__()
        self._log, self._may_write = log, may_write
        self._accepted: Accepted | None = None
        self._body: Sequence[bytes] = ()
        self._packed: list[bytes] = []
        self._unpackable: Record | None = None

    def begin(self, accepted: Accepted, body: Sequence[bytes] = ()) -> None:
        """Hold the first record. If the body in `accepted` is empty, the parts in `body` make up the
        request's body.
        """
        self._accepted, self._body = accepted, body

    def append(self, answer_id: str, record: Record) -> None:
        """Hold an event or a keep-alive. It is packed at once: to pack all records of a long answer at its
        end would take over 0.1 s, in which the event loop serves nobody else.
        """
        if self._accepted is None or self._unpackable is not None:
            return
        try:
            self._packed.append(pack_record(record))
        except ValueError:
            self._unpackable = record

    def ended(self, answer_id: str) -> None:
        """Write all records, unless the answer was forgotten or `may_write` returns False. Hold nothing
        afterwards. If a record could not be packed, `log` reports this, and does not keep the answer.
        """
        accepted, body, packed, unpackable = self._accepted, self._body, self._packed, self._unpackable
        self.forget(answer_id)
        if accepted is None or not self._may_write():
            return
        self._log.begin(accepted, body)
        self._log.append_packed(answer_id, b"".join(packed))
        if unpackable is not None:
            self._log.append(answer_id, unpackable)
        self._log.ended(answer_id)

    def forget(self, answer_id: str) -> None:
        """Drop the records, so that the answer is never written."""
        self._accepted, self._body, self._packed, self._unpackable = None, (), [], None
