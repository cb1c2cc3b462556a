"""Tell whether a shared library of Linux (an ELF file) was written to its end."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

_HEADER = struct.Struct("<16xHHIQQQIHHHHHH")
_MAGIC = b"\x7fELF\x02\x01"  # 64 bits, little-endian, as are all processors for which MLX is built
_TYPE_AT = 4  # in the header of a section
_STRING_TABLE = 3


def is_complete(library: Path) -> bool:
    """Return True if the file was written to its end, for a processor of the kind that runs this program;
    False if it was not, or does not exist.

    A file ends with the headers of its sections, and its first header says where they are. After a power cut,
    the end of a file may be missing or consist of zeros. Raises OSError if the file cannot be read.
    """
    try:
        content = library.read_bytes()
    except FileNotFoundError:
        return False
    if not content.startswith(_MAGIC) or len(content) < _HEADER.size:
        return False
    _, machine, _, _, _, headers_at, _, _, _, _, size, count, names = _HEADER.unpack_from(content)
    end = headers_at + size * count
    type_at = headers_at + size * names + _TYPE_AT
    if machine != _machine() or not 0 < headers_at < end <= len(content) or type_at + 4 > end:
        return False
    return bool(content[type_at : type_at + 4] == _STRING_TABLE.to_bytes(4, "little"))


def _machine() -> int:
    """Return the number for the kind of processor in the header of this program's own file."""
    with open(sys.executable, "rb") as file:
        return int(_HEADER.unpack(file.read(_HEADER.size))[1])
