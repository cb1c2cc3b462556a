"""The bytes of a block's file: decoding returns what was encoded, or raises."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_server.engine.prompt_cache import blob
from mlx_server.engine.prompt_cache.block import Block
from mlx_server.engine.prompt_cache.entry import Entry, file_bytes, pack, unpack
from mlx_server.engine.prompt_cache.snapshot import Snapshot

TAGS = {"identity": "model", "model": "m:1"}


def block(tokens=4, seed=0) -> Block:
    random = np.random.default_rng(seed)
    groups = (
        random.integers(0, 2**32, (3, 2, tokens, 4), dtype=np.uint32),
        random.integers(0, 2**16, (1, 2, tokens, 8), dtype=np.uint16),
    )
    return Block(tuple(range(tokens)), groups, ("F32", "BF16"), (0, 0, 1, 0))


def snapshot() -> Snapshot:
    arrays = (np.arange(6, dtype=np.uint32).reshape(1, 2, 3), np.array(5, dtype=np.uint8))
    return Snapshot((1, 2, 3), arrays, ("F32", "BOOL"), json.dumps([["A", [{"array": 0}, None, 1]]]))


def whole(value, key="k") -> bytes:
    return b"".join(pack(key, Entry(value, TAGS)))


def same(one, other) -> bool:
    arrays = [v.groups if isinstance(v, Block) else v.arrays for v in (one, other)]
    facts = [(v.ids, v.dtypes, v.order if isinstance(v, Block) else v.tree) for v in (one, other)]
    return facts[0] == facts[1] and all(np.array_equal(a, b) for a, b in zip(*arrays, strict=True))


VALUES = [block(), snapshot()]


@pytest.mark.parametrize("value", VALUES, ids=["block", "snapshot"])
def test_decode_of_an_encoded_cache_block_returns_the_same_block(value):
    data = whole(value)
    assert same(unpack("k", data, "model"), value)
    assert len(data) <= file_bytes("k", Entry(value, TAGS)) <= len(data) + 64


def test_encoded_cache_block_is_readable_by_mlx_as_safetensors(tmp_path):
    mx = pytest.importorskip("mlx.core")
    (tmp_path / "a.safetensors").write_bytes(whole(block()))
    arrays = mx.load(str(tmp_path / "a.safetensors"))
    assert {name: array.shape for name, array in arrays.items()} == {
        "group.0": (3, 2, 4, 4),
        "group.1": (1, 2, 4, 8),
    }


@given(st.data())
@settings(max_examples=400)
def test_decode_of_a_cache_block_with_any_flipped_bit_raises_corrupt_or_returns_the_same(data):
    value = data.draw(st.sampled_from(VALUES))
    bytes_ = bytearray(whole(value))
    at = data.draw(st.integers(0, len(bytes_) * 8 - 1))
    bytes_[at // 8] ^= 1 << at % 8
    try:
        read = unpack("k", bytes(bytes_), "model")
    except blob.Corrupt:
        return
    assert same(read, value)


@pytest.mark.parametrize("value", VALUES, ids=["block", "snapshot"])
def test_decode_of_a_truncated_or_extended_cache_block_raises_corrupt(value):
    data = whole(value)
    for end in range(len(data)):
        with pytest.raises(blob.Corrupt):
            unpack("k", data[:end], "model")
    with pytest.raises(blob.Corrupt):
        unpack("k", data + b"\0", "model")


@given(st.binary(max_size=64))
def test_decode_of_arbitrary_bytes_as_a_cache_block_raises_corrupt(data):
    for bytes_ in (data, len(data).to_bytes(8, "little") + data):
        with pytest.raises(blob.Corrupt):
            unpack("k", bytes_, "model")


def test_cache_block_file_of_another_key_model_or_format_counts_as_corrupt():
    data = whole(block())
    for key, identity in (("other", "model"), ("k", "other")):
        with pytest.raises(blob.Corrupt, match="another"):
            unpack(key, data, identity)
    with pytest.raises(blob.Corrupt, match="another"):
        unpack("k", _of_format("1"), "model")


def _of_format(number: str) -> bytes:
    facts, tensors = blob.decode(whole(block()))
    return b"".join(blob.encode(tensors, {**facts, "format": number}))


@pytest.mark.parametrize(
    "facts", [{"order": "0,0,1"}, {"order": "0,0,-1,0"}, {"order": ""}, {"tokens": "1,2"}, {"tokens": "x"}]
)
def test_cache_block_file_whose_metadata_contradicts_its_tensors_counts_as_corrupt(facts):
    stored_facts, tensors = blob.decode(whole(block()))
    data = b"".join(blob.encode(tensors, {**stored_facts, **facts}))
    with pytest.raises(blob.Corrupt):
        unpack("k", data, "model")
