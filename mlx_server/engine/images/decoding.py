"""Decode image files to RGB with Pillow. Images are rotated as their EXIF data say, and get a white
background where they are transparent.

Decoding a large image takes long, so these functions must be called in a background worker. They use neither
MLX nor the models.
"""

from __future__ import annotations

import base64
import binascii
import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mlx_server.engine.errors import RequestError

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 50_000_000
"""How many pixels an image may have unless `mlx.max_image_pixels` is configured."""
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "AVIF", "HEIF")
"""Pillow's names of the accepted formats. Pillow can read 40 others, but starts other programs for some."""
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_16_BIT_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")


def decode_all(images: Sequence[str], max_pixels: int = MAX_PIXELS) -> list[Image]:
    """Return the decoded `images`, which are files in standard base64, in the same order.

    Raises RequestError if an image cannot be used. The error names the image by its number, counted from 0.
    """
    return [_decode_numbered(number, image, max_pixels) for number, image in enumerate(images)]


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> Image:
    """Return the first frame of an image file as a Pillow image in RGB with 8 bits per channel.

    Raises RequestError if the file is of an unknown format, damaged, cut off, or has more than `max_pixels`
    pixels. The number of pixels is checked in the header, before anything is decoded.
    """
    from PIL import Image

    _register_heif(data)
    # Pillow warns of more pixels than this, and refuses more than twice as many. The setting is global.
    Image.MAX_IMAGE_PIXELS = max_pixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=_readable_formats()) as image:
                _check_size(image, max_pixels)
                image.load()
                return _as_rgb(_turned(image))
    except (RequestError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise _refusal(f"it has more than {max_pixels} pixels (mlx.max_image_pixels)") from None
    except Image.UnidentifiedImageError:
        raise _refusal("it is not a PNG, JPEG, WebP, GIF, AVIF or HEIC file that can be read") from None
    except Exception as error:  # decoders raise nearly anything for damaged files
        raise _refusal(f"it is damaged or cut off ({error})") from error


def _decode_numbered(number: int, image: str, max_pixels: int) -> Image:
    try:
        return decode(base64.b64decode(image, validate=True), max_pixels)
    except binascii.Error as error:
        raise RequestError("invalid_request", f"Image {number} is not base64: {error}.") from error
    except RequestError as error:
        raise RequestError(error.code, f"Image {number} cannot be used: {error}.") from error


def _refusal(reason: str) -> RequestError:
    return RequestError("invalid_request", reason)


def _readable_formats() -> list[str]:
    """Return the members of FORMATS that this installation of Pillow can read; `Image.open` refuses
    others.
    """
    from PIL import Image

    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _register_heif(data: bytes) -> None:
    """Make Pillow read HEIC if `data` is a HEIC file. Raises RequestError if the package for HEIC
    is missing.
    """
    if data[4:8] != b"ftyp" or data[8:12] not in HEIF_BRANDS:
        return
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise _refusal("HEIC is read by the package pillow-heif, which is not installed") from None
    register_heif_opener()


def _check_size(image: Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        size = f"it has {width} x {height} pixels"
        raise _refusal(f"{size}, and {max_pixels} are the most (mlx.max_image_pixels)")
    if not width or not height:
        raise _refusal("it has no pixels")


def _turned(image: Image) -> Image:
    """Return the image rotated as its EXIF data say; unchanged if they cannot be parsed."""
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # EXIF data are written by many programs, and parsed without checks
        return image


def _as_rgb(image: Image) -> Image:
    """Return the image in RGB, with a white background behind transparent parts, as a browser shows it."""
    from PIL import Image

    if image.mode in _16_BIT_MODES:  # a plain conversion would cut all values over 255
        return image.convert("I").point(lambda value: value / 256).convert("L").convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    colors = image.convert("RGBA")
    white = Image.new("RGBA", colors.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, colors).convert("RGB")
