"""The writing thread packs the record of a request with a large body; its size is known before."""

from __future__ import annotations

import msgspec
import pytest

from mlx_server.gateway.answer_log import FORMAT, Accepted, pack_record, read_records
from mlx_server.gateway.answer_log.late_bytes import MAX_PACKED_AT_ONCE_BYTES, LateBytes, made, packed
from mlx_server.gateway.answer_log.records import packed_bytes

HEAD = Accepted(FORMAT, "a", 0.0, "POST", "/api/chat", "", (("x", "y"),), b"", 1, None, "d", "0")


@pytest.mark.parametrize("size", [0, 1, 255, 256, 65535, 65536, MAX_PACKED_AT_ONCE_BYTES, 2**20])
def test_packed_request_record_has_its_precomputed_size_whatever_its_body(size: int):
    body = [b"x" * (size // 2), b"y" * (size - size // 2)] if size else []
    chunk = packed(HEAD, body)
    assert isinstance(chunk, LateBytes) == (size > MAX_PACKED_AT_ONCE_BYTES)
    (data,) = made([chunk])
    assert len(chunk) == len(data) == packed_bytes(HEAD, size)
    ((record,), whole_bytes) = read_records(data)
    assert isinstance(record, Accepted)
    assert (record.body, whole_bytes) == (b"".join(body), len(data))


@pytest.mark.parametrize("size", [0, 255, 256, 65536, 2**20])
@pytest.mark.parametrize("count", [1, 2, 15, 16])
def test_packed_request_record_has_its_precomputed_size_whatever_bodies_it_refers_to(size: int, count: int):
    """A conversation of 15 lists has another header in MessagePack than one of 16."""
    head = msgspec.structs.replace(HEAD, referenced=(b"z" * size,) * count)
    chunk = packed(head, [b"body"])
    assert isinstance(chunk, LateBytes) == (size * count + 4 > MAX_PACKED_AT_ONCE_BYTES)
    (data,) = made([chunk])
    assert len(chunk) == len(data) == packed_bytes(head, 4)
    ((record,), _) = read_records(data)
    assert isinstance(record, Accepted)
    assert (record.body, record.referenced) == (b"body", head.referenced)


def test_request_record_without_a_separate_body_has_the_same_bytes_as_from_pack_record():
    assert packed(HEAD, []) == pack_record(HEAD)
