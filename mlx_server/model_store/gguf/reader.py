"""Read a GGUF file's header: its metadata, and where its tensors are. Standard library only.

Every count and length in the file is checked against the file's size before it is used, so that a damaged or
hostile file is refused at once and cannot make the reader allocate more memory than the file's size.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAGIC = b"GGUF"
_MAX_TENSORS = 65_536
_MAX_KEYS = 65_536
_MAX_ALIGNMENT = 65_536
_MAX_NAME_BYTES = 1024
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


class UnsupportedGguf(ValueError):
    """A GGUF file cannot be converted without loss of meaning; the text is a clause that says why."""


@dataclass(frozen=True)
class TensorType:
    """A type of GGUF tensors, in which each block of `block_weights` weights takes `block_bytes` bytes.

    A tensor of this type is converted to MLX's quantization with `bits` bits per weight and groups of 32
    weights, or to floats if `bits` is None.
    """

    name: str
    block_weights: int
    block_bytes: int
    bits: int | None = None


TYPES = {
    0: TensorType("F32", 1, 4),
    1: TensorType("F16", 1, 2),
    2: TensorType("Q4_0", 32, 18, 4),
    3: TensorType("Q4_1", 32, 20, 4),
    6: TensorType("Q5_0", 32, 22, 5),
    7: TensorType("Q5_1", 32, 24, 5),
    8: TensorType("Q8_0", 32, 34, 8),
    10: TensorType("Q2_K", 256, 84, 4),
    11: TensorType("Q3_K", 256, 110, 4),
    12: TensorType("Q4_K", 256, 144, 4),
    13: TensorType("Q5_K", 256, 176, 5),
    14: TensorType("Q6_K", 256, 210, 6),
    20: TensorType("IQ4_NL", 32, 18, 5),
    23: TensorType("IQ4_XS", 256, 136, 5),
    30: TensorType("BF16", 1, 2),
}
"""The types that can be converted, by their numbers in the file.

Types with 16 weights in a group, and types with unequal steps, are quantized again. Of normally distributed
weights, this loses 7.5 % (4 bits), 3.7 % (5 bits) and 2 % (6 bits) of their root mean square; Q2_K itself has
lost 33 %, Q3_K 18 %, Q6_K 2 %. With 8 bits Q6_K would lose 0.5 %, but models would become 37 % larger instead
of 7 %.
"""
_OTHER_TYPES = {
    16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 21: "IQ3_S", 22: "IQ2_S", 29: "IQ1_M",
    34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4", 41: "Q1_0",
}  # fmt: skip
"""The names of the types that are refused, by their numbers in the file."""


@dataclass(frozen=True)
class Tensor:
    """One tensor of a GGUF file. `shape` is (…, rows, columns); its data are `bytes` long and begin at
    `offset` in the file.
    """

    name: str
    type: TensorType
    shape: tuple[int, ...]
    offset: int
    bytes: int

    @property
    def weights(self) -> int:
        """Return the number of weights in the tensor, which is the product of its dimensions."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class SkippedArray:
    """Stands for an array of the metadata that was not read; `len()` is the number of its elements."""

    count: int

    def __len__(self) -> int:
        return self.count


@dataclass(frozen=True)
class Header:
    """The metadata of a GGUF file, and its tensors by name."""

    metadata: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


def is_gguf(path: Path) -> bool:
    """Return True if the file begins with the magic number of GGUF."""
    with path.open("rb") as file:
        return file.read(4) == MAGIC


def read_header(path: Path, *, keep_arrays: bool = True) -> Header:
    """Return the header of the file. Raises UnsupportedGguf if the file is damaged, truncated or of a kind
    that is not converted, and OSError if it cannot be read.

    Without `keep_arrays`, long arrays (tokens, merges) become `SkippedArray`, which takes less time.
    """
    size = path.stat().st_size
    if size < 24:
        raise UnsupportedGguf(f"it is cut off: it has {size} bytes")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            return _Reader(content, keep_arrays).header()
        except (struct.error, IndexError, OverflowError) as error:
            raise UnsupportedGguf(f"it is cut off within its header: it has {size} bytes") from error
        except UnicodeDecodeError as error:
            raise UnsupportedGguf("a text in its header is not UTF-8") from error


def is_image_part(path: Path) -> bool:
    """Return True if the GGUF file holds only the image part of a model (`mmproj`), whose architecture is
    `clip`. Return False if the file is empty or its metadata are damaged. Raises OSError if the file cannot
    be opened or read.
    """
    if not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            return _Reader(content, keep_arrays=False).metadata().get("general.architecture") == "clip"
        except (UnsupportedGguf, struct.error, IndexError, OverflowError, UnicodeDecodeError):
            return False


def read_floats(path: Path, tensor: Tensor) -> list[float]:
    """Return the numbers of a tensor. Raises UnsupportedGguf unless the tensor is one-dimensional and
    float32.
    """
    if tensor.type.name != "F32" or len(tensor.shape) != 1:
        raise UnsupportedGguf(f"its tensor {tensor.name} is not a list of float32 numbers")
    with path.open("rb") as file:
        file.seek(tensor.offset)
        return list(struct.unpack(f"<{tensor.weights}f", file.read(tensor.bytes)))


class _Reader:
    def __init__(self, content: mmap.mmap, keep_arrays: bool) -> None:
        self._content = content
        self._size = len(content)
        self._keep_arrays = keep_arrays
        self._at = 0
        self._tensor_count = 0

    def header(self) -> Header:
        metadata = self.metadata()
        return Header(metadata, self._tensors(self._tensor_count, metadata))

    def metadata(self) -> dict[str, Any]:
        if self._content[:4] != MAGIC:
            raise UnsupportedGguf("it is not a GGUF file")
        self._at = 4
        version = self._scalar("I")
        if version not in (2, 3):
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
            what = "it is for big-endian machines" if swapped in (2, 3) else f"its version is {version}"
            raise UnsupportedGguf(f"{what}; GGUF files of version 2 and 3 can be converted")
        self._tensor_count, keys = self._scalar("Q"), self._scalar("Q")
        if self._tensor_count > _MAX_TENSORS or keys > _MAX_KEYS:
            raise UnsupportedGguf(f"it is damaged: it claims {self._tensor_count} tensors and {keys} entries")
        metadata: dict[str, Any] = {}
        for _ in range(keys):
            name = self._text(_MAX_NAME_BYTES)
            metadata[name] = self._value(name, self._scalar("I"))
        return metadata

    def _tensors(self, count: int, metadata: Mapping[str, Any]) -> dict[str, Tensor]:
        entries = [self._entry() for _ in range(count)]
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or not 0 < alignment <= _MAX_ALIGNMENT or alignment & (alignment - 1):
            raise UnsupportedGguf(f"it is damaged: its alignment is {str(alignment)[:40]}")
        data = -(-self._at // alignment) * alignment
        tensors: dict[str, Tensor] = {}
        for name, shape, number, offset in entries:
            if (kind := TYPES.get(number)) is None:
                named = _OTHER_TYPES.get(number, f"number {number}")
                known = ", ".join(each.name for each in TYPES.values())
                raise UnsupportedGguf(f"its tensor {name} is of type {named}; {known} can be converted")
            if name in tensors:
                raise UnsupportedGguf(f"it is damaged: it has two tensors {name}")
            if shape[-1] % kind.block_weights:
                raise UnsupportedGguf(f"it is damaged: the rows of {name} are not whole blocks")
            size = math.prod(shape) // kind.block_weights * kind.block_bytes
            if data + offset + size > self._size:
                raise UnsupportedGguf(
                    f"it is cut off: tensor {name} ends after the file, at {self._size} bytes"
                )
            tensors[name] = Tensor(name, kind, shape, data + offset, size)
        if sum(tensor.bytes for tensor in tensors.values()) > self._size:
            raise UnsupportedGguf("it is damaged: its tensors overlap")
        return tensors

    def _entry(self) -> tuple[str, tuple[int, ...], int, int]:
        name, dimensions = self._text(_MAX_NAME_BYTES), self._scalar("I")
        if not 1 <= dimensions <= 4:
            raise UnsupportedGguf(f"it is damaged: tensor {name} has {dimensions} dimensions")
        shape = tuple(reversed([self._scalar("Q") for _ in range(dimensions)]))
        if not all(length <= self._size * 8 for length in shape):
            raise UnsupportedGguf(f"it is damaged: the shape of tensor {name} is {shape}")
        return name, shape, self._scalar("I"), self._scalar("Q")

    def _value(self, name: str, kind: int) -> Any:
        if (code := _SCALARS.get(kind)) is not None:
            return self._scalar(code)
        if kind == _STRING:
            return self._text()
        if kind != _ARRAY:
            raise UnsupportedGguf(f"it is damaged: {name} is of type {kind}")
        kind, count = self._scalar("I"), self._scalar("Q")
        if kind == _STRING:
            return self._texts(name, count)
        if (code := _SCALARS.get(kind)) is None:
            raise UnsupportedGguf(f"it is damaged: {name} is an array of type {kind}")
        width = struct.calcsize(code)
        self._require(count * width, name)
        start, self._at = self._at, self._at + count * width
        if not self._keep_arrays and count > _KEPT_ELEMENTS:
            return SkippedArray(count)
        return list(struct.unpack_from(f"<{count}{code}", self._content, start))

    def _texts(self, name: str, count: int) -> list[str] | SkippedArray:
        self._require(count * 8, name)
        if self._keep_arrays or count <= _KEPT_ELEMENTS:
            return [self._text() for _ in range(count)]
        length_at, unpack = self._at, struct.Struct("<Q").unpack_from
        for _ in range(count):
            length_at += 8 + unpack(self._content, length_at)[0]
            if length_at > self._size:
                raise UnsupportedGguf(f"it is cut off or damaged: a text in {name} ends after the file")
        self._at = length_at
        return SkippedArray(count)

    def _text(self, limit: int | None = None) -> str:
        length = self._scalar("Q")
        if limit is not None and length > limit:
            raise UnsupportedGguf(f"it is damaged: a name has {length} bytes")
        self._require(length, "a text")
        start, self._at = self._at, self._at + length
        return self._content[start : self._at].decode("utf-8")

    def _scalar(self, code: str) -> Any:
        (value,) = struct.unpack_from(f"<{code}", self._content, self._at)
        self._at += struct.calcsize(code)
        return value

    def _require(self, length: int, name: str) -> None:
        if length > self._size - self._at:
            raise UnsupportedGguf(
                f"it is cut off or damaged: {name} has {length} bytes, and {self._size} are there"
            )


_KEPT_ELEMENTS = 256
