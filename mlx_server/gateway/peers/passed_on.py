"""Encode and decode an unfinished answer that one machine passes on to another, which continues it. Pure.

It is passed on as records of the answer log: the request, and the items that its client has received. A
header that is added to the request in the first record marks the request as passed on.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

import msgspec

from mlx_server.gateway.answer_log import Accepted, Event, Record, Silence, pack_record, read_records
from mlx_server.gateway.errors import BadRequest

MARK = "x-vestal-passed-on"
"""The header that marks a request from another machine. Such a request is never passed on to a third
machine."""

DIGEST = "x-vestal-model-digest"
"""The header with the digest of the model that generated the beginning of an answer."""


def is_passed_on(head: Accepted) -> bool:
    """Return whether the gateway of another machine, rather than a client, has sent this request."""
    return any(name.lower() == MARK for name, _ in head.headers)


def packed(records: Sequence[Record]) -> bytes:
    """Return the records of an answer as bytes for another machine. Raises ValueError if a record cannot be
    packed.
    """
    return b"".join(pack_record(record) for record in marked(records))


def marked(records: Sequence[Record]) -> list[Record]:
    """Return the records that another machine needs: the request, with the header MARK added because it is
    passed on, and the items that its client has received.
    """
    head = records[0]
    assert isinstance(head, Accepted)
    given = [record for record in records[1:] if isinstance(record, Silence | Event)]
    return [msgspec.structs.replace(head, headers=(*head.headers, (MARK, "1"))), *given]


def unpacked(data: bytes, answer_id: str, paths: Container[str]) -> list[Record]:
    """Return the records in `data`, which another machine has encoded with `packed`.

    Raises BadRequest unless they are the records of an unfinished answer with the id `answer_id`, whose
    request is marked as passed on and is a POST request to one of `paths`. These are the paths of the HTTP
    API whose answers this gateway can continue.
    """
    records, whole_bytes = read_records(data)
    head = records[0] if records else None
    if not isinstance(head, Accepted) or whole_bytes != len(data):
        raise BadRequest("invalid_request", "The body does not hold the records of an answer.")
    if head.id != answer_id or head.method != "POST" or head.path not in paths or not is_passed_on(head):
        raise BadRequest("invalid_request", "The records are not those of a request that is passed on.")
    if not all(isinstance(record, Event | Silence) for record in records[1:]):
        raise BadRequest("invalid_request", "The records are not those of an answer that is not finished.")
    return records


def has_begun(records: Sequence[Record]) -> bool:
    """Return whether a part of the answer has been generated."""
    return any(isinstance(record, Event) for record in records)


class _Body(msgspec.Struct):
    model: str = ""


_decoder = msgspec.json.Decoder(_Body)


def model_of(body: bytes) -> str:
    """Return the model that a request's JSON body names; an empty text if it names none or is invalid."""
    try:
        return _decoder.decode(body).model
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return ""
