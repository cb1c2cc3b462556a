"""Headers of damaged and hostile GGUF files: each is refused with one sentence, without reading beyond."""

from __future__ import annotations

import contextlib
import random
import struct

import numpy as np
import pytest

from mlx_server.model_store.gguf.reader import SkippedArray, UnsupportedGguf, read_header
from tests.unit.mlx_server.model_store.gguf import gguf_files


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def header(tensors=0, keys=0, version=3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys)


def tensor(name=b"t", shape=(32,), kind=0, offset=0) -> bytes:
    dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return text(name) + dimensions + struct.pack("<IQ", kind, offset)


ALIGNMENT = text(b"general.alignment") + struct.pack("<I", 4)
HOSTILE = {
    "another format": (b"PK\x03\x04" + bytes(60), "it is not a GGUF file"),
    "empty": (b"", "cut off: it has 0 bytes"),
    "cut off after the magic": (b"GGUF\x03\x00", "cut off"),
    "version 1": (header(version=1) + bytes(40), "its version is 1"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "huge number of entries": (header(keys=1 << 60), "claims 0 tensors and 1152921504606846976 entries"),
    "huge number of tensors": (header(tensors=1 << 63), "claims 9223372036854775808 tensors"),
    "entries beyond the end": (header(keys=5), "cut off within its header"),
    "name over the file": (header(keys=1) + struct.pack("<Q", 900) + b"a", "a text has 900 bytes"),
    "name of a gigabyte": (header(keys=1) + struct.pack("<Q", 1 << 40) + bytes(99), "a name has"),
    "text over the file": (
        header(keys=1) + text(b"k") + struct.pack("<IQ", 8, 1 << 62),
        "cut off or damaged",
    ),
    "array over the file": (header(keys=1) + text(b"k") + struct.pack("<IIQ", 9, 4, 1 << 61), "k has"),
    "texts over the file": (header(keys=1) + text(b"k") + struct.pack("<IIQ", 9, 8, 1 << 61), "k has"),
    "text in a long array over the file": (
        header(keys=1) + text(b"k") + struct.pack("<IIQQ", 9, 8, 300, (1 << 64) - 1) + bytes(4000),
        "cut off or damaged",
    ),
    "last text of a long array over the file": (
        header(keys=1) + text(b"k") + struct.pack("<IIQ", 9, 8, 300) + bytes(299 * 8) + struct.pack("<Q", 9),
        "cut off or damaged",
    ),
    "array of arrays": (header(keys=1) + text(b"k") + struct.pack("<IIQ", 9, 9, 1), "array of type 9"),
    "unknown type of an entry": (header(keys=1) + text(b"k") + struct.pack("<I", 77), "k is of type 77"),
    "text that is not UTF-8": (header(keys=1) + text(b"\xff") + struct.pack("<IB", 0, 1), "not UTF-8"),
    "alignment of 0": (header(keys=1) + ALIGNMENT + struct.pack("<I", 0), "its alignment is 0"),
    "alignment of 48": (header(keys=1) + ALIGNMENT + struct.pack("<I", 48), "its alignment is 48"),
    "alignment of 2 GiB": (header(keys=1) + ALIGNMENT + struct.pack("<I", 1 << 31), "its alignment is"),
    "no dimensions": (header(1) + tensor(shape=()), "has 0 dimensions"),
    "shape that overflows": (header(1) + tensor(shape=(1 << 33, 1 << 33)), "the shape of tensor t"),
    "unknown type": (header(1) + tensor(kind=99), "tensor t is of type number 99; F32, F16"),
    "type that is refused": (header(1) + tensor(kind=16, shape=(256,)), "of type IQ2_XXS"),
    "half a block": (header(1) + tensor(kind=12, shape=(64,)), "not whole blocks"),
    "offset beyond the end": (header(1) + tensor(offset=1 << 60) + bytes(256), "ends after the file"),
    "weights cut off": (header(1) + tensor() + bytes(64), "tensor t ends after the file"),
    "two of one name": (header(2) + tensor() * 2 + bytes(512), "two tensors t"),
    "tensors that overlap": (
        header(40) + b"".join(tensor(b"%d" % i, (1024,)) for i in range(40)) + bytes(4200),
        "its tensors overlap",
    ),
}


@pytest.mark.parametrize(("content", "reason"), HOSTILE.values(), ids=HOSTILE)
def test_damaged_gguf_file_is_refused_with_the_reason(tmp_path, content, reason):
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    for keep_arrays in (True, False):
        with pytest.raises(UnsupportedGguf, match=reason):
            read_header(path, keep_arrays=keep_arrays)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    tensors = {"token_embd.weight": np.zeros((288, 64), np.float32)}
    return gguf_files.write(path, gguf_files.metadata_of("llama"), tensors)


def test_gguf_header_written_by_the_gguf_package_is_read_back(whole):
    read = read_header(whole)
    expected = gguf_files.metadata_of("llama")
    for key, value in expected.items():
        assert read.metadata[key] == (pytest.approx(value) if isinstance(value, float) else value)
    assert read.tensors["token_embd.weight"].shape == (288, 64)


def test_gguf_header_read_without_arrays_has_the_lengths_of_the_arrays(whole):
    tokens = read_header(whole, keep_arrays=False).metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, SkippedArray)
    assert len(tokens) == len(gguf_files.TOKENS)


def test_gguf_file_truncated_or_changed_anywhere_is_read_or_refused(whole, tmp_path):
    content = whole.read_bytes()
    generator = random.Random(7)
    path = tmp_path / "m.gguf"
    for _ in range(300):
        damaged = bytearray(content[: generator.randrange(4, len(content))])
        for _ in range(generator.randrange(3)):
            damaged[generator.randrange(4, min(len(damaged), 6000))] = generator.randrange(256)
        path.write_bytes(damaged)
        with contextlib.suppress(UnsupportedGguf):
            read_header(path)
