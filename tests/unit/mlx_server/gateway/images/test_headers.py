"""An image file is recognized by its bytes, and its size is read without decoding it, as Pillow reads it."""

from __future__ import annotations

import contextlib
import io
import random
import struct

import pytest
from PIL import Image

from mlx_server.gateway.images.headers import UnreadableImage, read_header

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "AVIF")


def saved(file_format: str, size: tuple[int, int] = (37, 21), mode: str = "RGB", **options) -> bytes:
    out = io.BytesIO()
    Image.new(mode, size).save(out, file_format, **options)
    return out.getvalue()


def box(kind: bytes, *content: bytes) -> bytes:
    inner = b"".join(content)
    return struct.pack(">I4s", 8 + len(inner), kind) + inner


def heic(*sizes: tuple[int, int]) -> bytes:
    """Return the beginning of a HEIC file with images of these sizes, as a camera lays it out."""
    spatial = [box(b"ispe", bytes(4), struct.pack(">II", *size)) for size in sizes]
    properties = box(b"iprp", box(b"ipco", *spatial), box(b"ipma", bytes(8)))
    meta = box(b"meta", bytes(4), box(b"hdlr", bytes(20)), properties)
    return box(b"ftyp", b"heic", bytes(4), b"mif1heic") + meta + box(b"mdat", bytes(100))


@pytest.mark.parametrize(
    "data",
    [
        *(saved(each) for each in FORMATS),
        saved("WEBP", lossless=True),
        saved("WEBP", mode="RGBA", exif=b"Exif\0\0MM\0*"),
        saved("JPEG", progressive=True, exif=Image.Exif()),
        saved("JPEG", comment=b"\xff\xc0" * 300),
        saved("GIF", save_all=True, append_images=[Image.new("RGB", (37, 21), (9, 9, 9))], loop=3),
        saved("PNG", mode="P") + b"appended by a camera",
    ],
)
def test_image_size_read_from_a_file_header_equals_the_size_that_pillow_reads(data: bytes):
    header = read_header(data)
    assert (header.width, header.height) == Image.open(io.BytesIO(data)).size == (37, 21)


def test_heic_header_gives_the_size_of_the_whole_image_and_not_of_its_tiles():
    header = read_header(heic((512, 512), (4032, 3024), (320, 240)))
    assert (header.format, header.width, header.height) == ("HEIC", 4032, 3024)


def test_gif_header_with_a_frame_larger_than_its_canvas_gives_the_size_of_the_frame():
    """A canvas of 1 x 1 with a frame of 65,535 x 65,535 would take 4 GB to decode."""
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0)
    header = read_header(b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0, 0, 0) + frame)
    assert header.pixels == 65535 * 65535


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"%PDF-1.7 and more", "is not a PNG, JPEG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is not a PNG, JPEG"),
        (b"BM" + bytes(60), "is not a PNG, JPEG"),
        (b"II*\0" + bytes(60), "is not a PNG, JPEG"),
        (saved("PNG")[:-8], "cut off"),
        (saved("PNG")[:20], "ends within its header"),
        (saved("WEBP")[:-4], "cut off"),
        (saved("JPEG")[:30], "header"),
        (b"\xff\xd8\xff\xda" + bytes(50), "header is damaged"),
        (b"\xff\xd8" + b"\xff" * 5000, "ends within its header"),
        (b"GIF89a" + bytes(7) + b";", "without a frame"),
        (box(b"ftyp", b"heic", bytes(4)) + box(b"mdat", bytes(9)), "without a size"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(8) + b"IEND", "without pixels"),
    ],
)
def test_image_header_of_bytes_that_are_no_image_is_refused_with_the_reason(data: bytes, reason: str):
    with pytest.raises(UnreadableImage, match=reason):
        read_header(data)


def test_damaged_image_headers_are_read_or_refused_and_never_raise_anything_else():
    source = random.Random(17)
    files = [*(saved(each) for each in FORMATS), heic((64, 64))]
    for data in files:
        for _ in range(300):
            damaged = bytearray(data[: source.randint(1, len(data))])
            for _ in range(source.randint(1, 8)):
                damaged[source.randrange(len(damaged))] = source.randrange(256)
            with contextlib.suppress(UnreadableImage):
                assert read_header(bytes(damaged)).pixels > 0


def test_image_header_of_endless_segments_is_refused_quickly():
    with pytest.raises(UnreadableImage):
        read_header(b"\xff\xd8" + b"\xff\xfe\x00\x02" * 2_000_000)
    with pytest.raises(UnreadableImage):
        read_header(box(b"ftyp", b"heic", bytes(4)) + struct.pack(">I4s", 8, b"free") * 2_000_000)
