"""Recognize an image file by its first bytes, and read its size in pixels from its header. Pure.

Nothing is decoded, so that no file can take more memory than its own bytes, or crash this process. Faults
that the header does not show (damaged pixels, a file that ends early) appear when the engine decodes the
image.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

MAX_STEPS = 10_000
"""How many segments or boxes of a header are read at most. Files from cameras have about 30."""
_HEIF_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))
_AVIF_BRANDS = frozenset((b"avif", b"avis"))
_NO_FRAME = frozenset((0xC4, 0xC8, 0xCC))
"""JPEG markers that do not begin a frame, although they are in the range of frame markers (0xC0 to 0xCF)."""


class UnreadableImage(ValueError):
    """The bytes are not a usable image. The text says why, and completes a sentence that begins with "the
    image".
    """


@dataclass(frozen=True)
class ImageHeader:
    """The facts in the header of an image file: the format, and the size in pixels."""

    format: str
    width: int
    height: int

    @property
    def pixels(self) -> int:
        return self.width * self.height


def read_header(data: bytes) -> ImageHeader:
    """Return the header of an image file, whatever media type the client declared. Raises UnreadableImage if
    the file is not an image of a known format, or its header is damaged.
    """
    if not data:
        raise UnreadableImage("is empty")
    try:
        header = _header(data)
    except (struct.error, IndexError):
        raise UnreadableImage("ends within its header") from None
    if not header.width or not header.height:
        raise UnreadableImage(f"is a {header.format} file without pixels")
    return header


def _header(data: bytes) -> ImageHeader:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png(data)
    if data.startswith(b"\xff\xd8\xff"):
        return ImageHeader("JPEG", *_jpeg_size(data))
    if data.startswith((b"GIF87a", b"GIF89a")):
        return ImageHeader("GIF", *_gif_size(data))
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp(data)
    if data[4:8] == b"ftyp" and (brands := _HEIF_BRANDS | _AVIF_BRANDS) and data[8:12] in brands:
        name = "AVIF" if data[8:12] in _AVIF_BRANDS else "HEIC"
        return ImageHeader(name, *_heif_size(data))
    raise UnreadableImage(f"is not a PNG, JPEG, WebP, GIF, AVIF or HEIC file (it begins with {data[:12]!r})")


def _png(data: bytes) -> ImageHeader:
    if data[12:16] != b"IHDR":
        raise UnreadableImage("is a PNG file without a header")
    header = ImageHeader("PNG", *struct.unpack_from(">II", data, 16))
    if b"IEND" not in data[-64 * 1024 :]:  # some programs append something after the end
        raise UnreadableImage("is a PNG file that is cut off")
    return header


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Return width and height from the header of the first frame. Raises UnreadableImage if there is none."""
    at = 2
    for _ in range(MAX_STEPS):
        while data[at] == 0xFF:
            at += 1
        marker = data[at]
        if data[at - 1] != 0xFF or marker == 0xDA:  # this is not a marker, or the pixels begin
            break
        at += 1
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:  # these markers have no content
            continue
        if 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME:
            height, width = struct.unpack_from(">HH", data, at + 3)
            return width, height
        at += struct.unpack_from(">H", data, at)[0]
    raise UnreadableImage("is a JPEG file whose header is damaged")


def _gif_size(data: bytes) -> tuple[int, int]:
    """Return width and height of the canvas, enlarged if the first frame reaches beyond the canvas. Raises
    UnreadableImage if there is no frame.
    """
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    for _ in range(MAX_STEPS):
        if data[at] == 0x2C:
            left, top, frame_width, frame_height = struct.unpack_from("<HHHH", data, at + 1)
            return max(width, left + frame_width), max(height, top + frame_height)
        if data[at] != 0x21:
            break
        at += 2  # an extension: its label, then blocks that begin with their length
        while data[at]:
            at += 1 + data[at]
        at += 1
    raise UnreadableImage("is a GIF file without a frame")


def _webp(data: bytes) -> ImageHeader:
    if struct.unpack_from("<I", data, 4)[0] + 8 > len(data) + 1:  # some writers do not pad the last chunk
        raise UnreadableImage("is a WebP file that is cut off")
    chunk = data[12:16]
    if chunk == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return ImageHeader("WebP", width & 0x3FFF, height & 0x3FFF)
    if chunk == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return ImageHeader("WebP", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if chunk == b"VP8X":
        width, height = (int.from_bytes(data[start : start + 3], "little") + 1 for start in (24, 27))
        if len(data) >= 30:
            return ImageHeader("WebP", width, height)
    raise UnreadableImage("is a WebP file whose header is damaged")


def _heif_size(data: bytes) -> tuple[int, int]:
    """Return width and height of the largest image in the file; the others are its tiles and thumbnails.
    Raises UnreadableImage if the file has no size.
    """
    sizes = []
    for kind, start, end in _boxes(data, 0, len(data)):
        if kind != b"meta":
            continue
        for properties, inner_start, inner_end in _boxes(data, start + 4, end):
            if properties != b"iprp":
                continue
            for container, first, last in _boxes(data, inner_start, inner_end):
                if container == b"ipco":
                    found = (each for each in _boxes(data, first, last) if each[0] == b"ispe")
                    sizes += [struct.unpack_from(">II", data, at + 4) for _, at, _ in found]
    if not sizes:
        raise UnreadableImage("is an AVIF or HEIC file without a size")
    return max(sizes, key=lambda size: size[0] * size[1])


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield (type, start, end) for each ISO box between the offsets `start` and `end`. The yielded offsets
    are the limits of the box's content.
    """
    for _ in range(MAX_STEPS):
        if start + 8 > end:
            return
        length, kind = struct.unpack_from(">I4s", data, start)
        header = 8
        if length == 1:
            length, header = struct.unpack_from(">Q", data, start + 8)[0], 16
        stop = end if length == 0 else min(start + length, end)
        if length and length < header:
            return
        yield kind, start + header, stop
        start = stop
