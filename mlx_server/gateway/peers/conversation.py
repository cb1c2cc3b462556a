"""The beginnings of conversations, and the machines that have computed them. Pure.

A machine that has served a turn has the turn's prompt in its prompt cache. The next turn begins with the same
messages. A digest of these messages is remembered with the machine's URL, so that the machine can be found
for the next turn.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import msgspec

from mlx_server.gateway.dialects.responses.references import response_of_item

PIECE_BYTES = 4096
"""The size of the parts into which a text is divided. A conversation is divided into its messages instead."""
MAX_PARTS = 512
MAX_REMEMBERED = 20_000
MAX_REFERENCE_BYTES = 1024
"""A reference to a stored item is not longer than this."""


@dataclass(frozen=True)
class Asked:
    """The contents of a request's body that decide which machine serves the request best.

    `beginnings` are pairs (digest, size in bytes). Each describes the conversation from its start to the end
    of one of its messages or pieces of text; the last pair describes the longest beginning.
    `previous_response_id` names the response that the request continues or, if it names none, the response of
    the last stored item that its input refers to; it is empty if there is neither.
    """

    model: str = ""
    previous_response_id: str = ""
    beginnings: tuple[tuple[bytes, int], ...] = ()


_NONE = msgspec.Raw(b"")


class _Body(msgspec.Struct):
    model: str = ""
    previous_response_id: str | None = None
    system: msgspec.Raw = _NONE
    instructions: msgspec.Raw = _NONE
    tools: msgspec.Raw = _NONE
    messages: msgspec.Raw = _NONE
    input: msgspec.Raw = _NONE
    prompt: msgspec.Raw = _NONE


_decoder = msgspec.json.Decoder(_Body)
_list_decoder = msgspec.json.Decoder(list[msgspec.Raw])


def asked_in(body: bytes) -> Asked:
    """Return what a request's body, in any API dialect, says about its model and its conversation; an `Asked`
    with empty fields if the body cannot be parsed.
    """
    try:
        read = _decoder.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return Asked()
    digest = hashlib.sha256(read.model.encode("utf-8", "surrogatepass"))
    size_bytes = 0
    beginnings: list[tuple[bytes, int]] = []
    for field in (read.system, read.instructions, read.tools):
        digest.update(bytes(field) + b"\0")
        size_bytes += len(bytes(field))
    for part in _parts(read):
        digest.update(part + b"\0")
        size_bytes += len(part)
        beginnings.append((digest.digest()[:16], size_bytes))
    previous_id = read.previous_response_id or _referenced_response(bytes(read.input))
    return Asked(read.model, previous_id, tuple(beginnings))


class _Reference(msgspec.Struct):
    type: str | None = None
    id: str = ""


_reference_decoder = msgspec.json.Decoder(_Reference)


def _referenced_response(given: bytes) -> str:
    """Return the id of the response to which the last item reference in `given`, the JSON of a body's input,
    belongs; an empty text if there is none.
    """
    items = _list_decoder.decode(given) if given.startswith(b"[") else []
    for item in map(bytes, reversed(items)):
        if len(item) > MAX_REFERENCE_BYTES or b'"id"' not in item:
            continue
        try:
            read = _reference_decoder.decode(item)
        except (msgspec.MsgspecError, UnicodeError):
            continue
        is_short = read.type is None and b'"role"' not in item  # the type may be left out
        if (read.type == "item_reference" or is_short) and (response_id := response_of_item(read.id)):
            return response_id
    return ""


def _parts(read: _Body) -> Iterator[bytes]:
    """Yield the first MAX_PARTS messages, or pieces of text, of each field of the parsed body `read` that may
    hold the conversation.
    """
    for field in (read.messages, read.input, read.prompt):
        data = bytes(field)
        if data.startswith(b"["):
            yield from (bytes(part) for part in _list_decoder.decode(data)[:MAX_PARTS])
        elif data:
            whole = range(0, min(len(data), MAX_PARTS * PIECE_BYTES), PIECE_BYTES)
            yield from (data[start : start + PIECE_BYTES] for start in whole)


class PrefixMemory:
    """Remembers which machine has computed which beginnings of conversations. Only the latest `size`
    beginnings are remembered.
    """

    def __init__(self, size: int = MAX_REMEMBERED) -> None:
        self._size = size
        self._served: OrderedDict[tuple[str, bytes], None] = OrderedDict()

    def note(self, asked: Asked, url: str) -> None:
        """Record that the machine at `url` serves the request `asked`, and so computes the request's
        conversation. If a later request begins with the same messages, `prefix_bytes` counts them as computed
        by this machine.
        """
        for digest, _ in asked.beginnings:
            self._served[url, digest] = None
            self._served.move_to_end((url, digest))
        while len(self._served) > self._size:
            self._served.popitem(last=False)

    def prefix_bytes(self, asked: Asked, urls: Collection[str]) -> dict[str, int]:
        """Return, by each machine's URL, how many bytes from the start of the conversation the machine has
        computed.
        """
        return {url: self._longest(asked, url) for url in urls}

    def _longest(self, asked: Asked, url: str) -> int:
        known = (size for digest, size in reversed(asked.beginnings) if (url, digest) in self._served)
        return next(known, 0)
