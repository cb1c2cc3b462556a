"""Image files of every format and mode become RGB; damaged and huge ones are refused with a sentence."""

from __future__ import annotations

import base64
import io
import struct
import sys
import warnings
import zlib

import pillow_heif
import pytest
from PIL import Image

from mlx_server.engine.errors import RequestError
from mlx_server.engine.images import decode, decode_all
from mlx_server.gateway.images.headers import ImageHeader, read_header
from mlx_server.model_store.image_packages import reads_heic

RED, WHITE = (255, 0, 0), (255, 255, 255)


def saved(image: Image.Image, file_format: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, file_format, **options)
    return out.getvalue()


def pixel(image: Image.Image, x: int, y: int) -> tuple[int, ...]:
    found = image.getpixel((x, y))
    assert isinstance(found, tuple)
    return found


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that announces a size and has no pixels."""
    header = struct.pack(">II5B", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    idat = b"IDAT" + zlib.compress(b"\0" * 10)
    chunks = b"".join(
        struct.pack(">I", len(each) - 4) + each + struct.pack(">I", zlib.crc32(each))
        for each in (chunk, idat, b"IEND")
    )
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize("file_format", ["PNG", "GIF", "WEBP", "JPEG", "AVIF"])
def test_image_of_every_format_is_decoded_to_rgb(file_format: str):
    options = {"lossless": True} if file_format == "WEBP" else {"quality": 95}
    image = decode(saved(Image.new("RGB", (40, 24), RED), file_format, **options))
    assert (image.mode, image.size) == ("RGB", (40, 24))
    assert all(abs(a - b) < 12 for a, b in zip(pixel(image, 20, 12), RED, strict=True))


def test_image_with_an_exif_orientation_is_turned():
    source = Image.new("RGB", (2, 1))
    source.putdata([RED, (0, 0, 255)])
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees clockwise
    turned = decode(saved(source, "PNG", exif=exif))
    assert turned.size == (1, 2)
    assert [pixel(turned, 0, y) for y in (0, 1)] == [RED, (0, 0, 255)]


def test_image_with_broken_exif_is_decoded_without_turning():
    data = saved(Image.new("RGB", (3, 3), RED), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert decode(data).size == (3, 3)


@pytest.mark.parametrize(("mode", "clear"), [("RGBA", (9, 9, 9, 0)), ("LA", (9, 0))])
def test_image_with_transparent_pixels_shows_white_there(mode: str, clear):
    assert pixel(decode(saved(Image.new(mode, (2, 2), clear), "PNG")), 1, 1) == WHITE


def test_image_with_a_transparent_palette_color_shows_white_there():
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1])
    pixels = decode(saved(image, "PNG", transparency=1))
    assert [pixel(pixels, x, 0) for x in (0, 1)] == [RED, WHITE]


def test_gray_image_with_16_bits_keeps_its_shades():
    image = Image.new("I;16", (3, 1))
    for x, value in enumerate((0, 32768, 65535)):
        image.putpixel((x, 0), value)
    pixels = decode(saved(image, "PNG"))
    assert [pixel(pixels, x, 0)[0] for x in range(3)] == [0, 128, 255]


def test_cmyk_jpeg_image_is_decoded_to_rgb():
    pixels = decode(saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95))
    assert all(abs(a - b) < 12 for a, b in zip(pixel(pixels, 4, 4), RED, strict=True))


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG"])
def test_animated_image_is_decoded_to_its_first_frame(file_format: str):
    frames = [Image.new("RGB", (8, 8), color) for color in (RED, (0, 0, 255))]
    data = saved(frames[0], file_format, save_all=True, append_images=frames[1:], duration=50)
    shown = pixel(decode(data), 4, 4)
    assert shown[0] > 200 and shown[2] < 60


def test_image_over_the_pixel_limit_is_refused_from_its_header_alone():
    with pytest.raises(RequestError, match=r"8000 x 8000 pixels, and 50000000 are the most"):
        decode(png_header(8_000, 8_000), 50_000_000)
    with pytest.raises(RequestError, match="pixels"):  # more than twice the limit: Pillow refuses it itself
        decode(png_header(4_000_000, 4_000_000), 50_000_000)


def test_pixel_limit_of_the_caller_replaces_pillows_own_limit_and_pillow_gives_no_warning(
    recwarn: pytest.WarningsRecorder,
):
    image = decode(saved(Image.new("L", (300, 300)), "PNG"), 300 * 300)
    assert image.size == (300, 300) and not recwarn.list
    with warnings.catch_warnings(record=True) as caught, pytest.raises(RequestError):
        decode(saved(Image.new("L", (300, 300)), "PNG"), 300 * 299)
    assert not caught


@pytest.mark.parametrize("file_format", ["PNG", "GIF", "WEBP", "JPEG", "AVIF"])
def test_truncated_image_file_is_refused(file_format: str):
    noise = Image.effect_noise((64, 64), 80).convert("RGB")
    data = saved(noise, file_format)
    with pytest.raises(RequestError):
        decode(data[: len(data) // 2])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GIF89a",
        b"not an image",
        b"\x89PNG\r\n\x1a\n",
        b"%PDF-1.7",
        b"<svg xmlns=''/>",
        b"BM" + b"\0" * 60,
    ],
)
def test_bytes_of_no_known_image_format_are_refused(data: bytes):
    with pytest.raises(RequestError):
        decode(data)


def heic(image: Image.Image, **options) -> bytes:
    """Return an image as a HEIC file, written by libheif as in pillow-heif."""
    pillow_heif.register_heif_opener()
    return saved(image, "HEIF", quality=95, **options)


def test_heic_image_is_decoded_to_rgb_with_the_size_that_its_header_gives():
    source = Image.new("RGB", (64, 128), (0, 0, 255))
    source.paste(RED, (0, 0, 32, 128))
    data = heic(source)
    assert read_header(data) == ImageHeader("HEIC", 64, 128)
    image = decode(data)
    assert (image.mode, image.size) == ("RGB", (64, 128))
    for x, color in ((8, RED), (56, (0, 0, 255))):
        assert all(abs(a - b) < 12 for a, b in zip(pixel(image, x, 24), color, strict=True))


def test_heic_image_with_its_rotation_stored_twice_is_turned_once():
    source = Image.new("RGB", (64, 32), (0, 0, 255))
    source.paste(RED, (0, 0, 32, 32))
    exif = Image.Exif()
    exif[0x0112] = 6
    data = heic(source, exif=exif.tobytes())  # as a camera writes it: the turn is in EXIF and in a box `irot`
    assert b"irot" in data
    turned = decode(data)
    assert turned.size == (32, 64)
    assert pixel(turned, 16, 8)[0] > 200 > pixel(turned, 16, 56)[0]


def test_heic_image_with_a_transparent_part_shows_white_there():
    assert all(each > 240 for each in pixel(decode(heic(Image.new("RGBA", (64, 64), (9, 9, 9, 0)))), 32, 32))


def test_heic_image_over_the_pixel_limit_is_refused():
    with pytest.raises(RequestError, match="64 x 64 pixels, and 4095 are the most"):
        decode(heic(Image.new("RGB", (64, 64), RED)), 64 * 64 - 1)


@pytest.mark.parametrize("part", [0.3, 0.9])
def test_truncated_heic_image_is_refused(part: float):
    data = heic(Image.effect_noise((64, 64), 80).convert("RGB"))
    with pytest.raises(RequestError):
        decode(data[: int(len(data) * part)])


def test_reads_heic_is_true_only_if_the_heic_decoder_is_installed(monkeypatch: pytest.MonkeyPatch):
    assert reads_heic()
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert not reads_heic()


def test_heic_image_without_an_installed_decoder_is_refused_naming_the_package(
    monkeypatch: pytest.MonkeyPatch,
):
    data = heic(Image.new("RGB", (8, 8), RED))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as if it were not installed
    with pytest.raises(RequestError, match="pillow-heif, which is not installed"):
        decode(data)


def test_refusal_of_one_of_several_images_names_its_number():
    good = base64.b64encode(saved(Image.new("RGB", (2, 2)), "PNG")).decode()
    with pytest.raises(RequestError, match="Image 1 cannot be used: it is not a PNG"):
        decode_all([good, base64.b64encode(b"nothing").decode()])
    with pytest.raises(RequestError, match="Image 0 is not base64"):
        decode_all(["%%%"])
    assert [image.size for image in decode_all([good, good])] == [(2, 2)] * 2
