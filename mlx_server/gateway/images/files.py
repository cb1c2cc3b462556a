"""Check the image files of a request, and convert them to the form in which the engine receives them.
Pure.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from mlx_server.gateway.errors import BadRequest
from mlx_server.gateway.images.headers import UnreadableImage, read_header

_URL_SAFE = bytes.maketrans(b"-_", b"+/")


@dataclass(frozen=True)
class ImageLimits:
    """The limits on the images of one request, from the settings in the section `mlx`.

    `max_images` limits the number of all images in the request; `max_bytes` and `max_pixels` limit each
    image. `reads_heic` is True if the optional decoder for HEIC is installed. `fetches_urls` is the setting
    `mlx.image_urls`.
    """

    max_images: int = 32
    max_bytes: int = 20 * 1024 * 1024
    max_pixels: int = 50_000_000
    reads_heic: bool = False
    fetches_urls: bool = False


def refused(field: str, reason: str, code: str = "invalid_request") -> BadRequest:
    """Return the error for the image at the path `field` in the body. `reason` completes a sentence that
    begins with "the image".
    """
    return BadRequest(code, f"{field}: the image {reason}", field=field)


def too_many(field: str, max_images: int) -> BadRequest:
    """Return the error for a request with more than `max_images` images. The error names `field`, the path in
    the request's body of an image beyond this limit.
    """
    most = f"{max_images} images (mlx.max_images), those of earlier turns included"
    return BadRequest("invalid_request", f"{field}: a request may hold {most}; send fewer", field=field)


def is_address(source: str) -> bool:
    """Return whether an image is given by an http or https URL, rather than by its data."""
    return source[:8].lower().startswith(("http://", "https://"))


def image_file(field: str, source: str, limits: ImageLimits) -> str:
    """Return an image file in standard base64. `source` is base64 or a data URL.

    Raises BadRequest, which names `field`, if the source is not base64, is not an image of a known format, or
    exceeds the limits. The media type of a data URL is ignored, since clients guess it.
    """
    text = _payload(field, source)
    if len(text) * 3 // 4 > limits.max_bytes * 2:  # before it is decoded; twice, as there may be line breaks
        raise _too_large(field, limits)
    data, is_standard = _decoded(field, text)
    if len(data) > limits.max_bytes:
        raise _too_large(field, limits)
    check_file(field, data, limits)
    return text if is_standard else base64.b64encode(data).decode("ascii")


def check_file(field: str, data: bytes, limits: ImageLimits) -> str:
    """Return the format of an image file. Raises BadRequest if the file is not an image of a known format, or
    exceeds the limits. `field` is the image's path in the body, which the error names.
    """
    try:
        header = read_header(data)
    except UnreadableImage as error:
        raise refused(field, str(error)) from None
    if header.pixels > limits.max_pixels:
        size = f"has {header.width} x {header.height} pixels"
        most = f"{limits.max_pixels} are the most (mlx.max_image_pixels)"
        raise refused(field, f"{size}, and {most}; send a smaller one")
    if header.format == "HEIC" and not limits.reads_heic:
        remedy = "the package pillow-heif, which reads it, is not installed; send JPEG or PNG"
        raise refused(field, f"is a HEIC file, and {remedy}", "not_supported")
    return header.format


def _too_large(field: str, limits: ImageLimits) -> BadRequest:
    return refused(field, f"has over {limits.max_bytes} bytes (mlx.max_image_bytes); send a smaller one")


def _payload(field: str, source: str) -> str:
    """Return the base64 text in `source`, which is either this text alone or a data URL. Raises BadRequest,
    which names `field` (the image's path in the body), if `source` is any other URL, or a data URL without
    base64.
    """
    if source[:5].lower() != "data:":
        if "://" in source[:40]:
            raise refused(field, "is given by an address that is not fetched; send it as a data URL")
        return source
    head, comma, payload = source.partition(",")
    if not comma or not head.lower().rstrip().endswith(";base64"):
        raise refused(field, "is a data URL without base64; write data:image/png;base64,…")
    return unquote_to_bytes(payload).decode("latin-1") if "%" in payload[:1000] else payload


def _decoded(field: str, text: str) -> tuple[bytes, bool]:
    """Return the bytes that the base64 in `text` encodes, and whether `text` is standard base64. Line breaks,
    missing padding and the URL-safe alphabet are accepted too; the second value is then False. Raises
    BadRequest, which names `field` (the image's path in the body), if `text` is not base64.
    """
    try:
        return binascii.a2b_base64(text, strict_mode=True), True
    except ValueError:  # not standard base64, perhaps not even ASCII
        pass
    try:
        compact = b"".join(text.encode("ascii").split()).translate(_URL_SAFE).rstrip(b"=")
        return binascii.a2b_base64(compact + b"=" * (-len(compact) % 4), strict_mode=True), False
    except ValueError as error:
        raise refused(field, f"is not base64 ({error})") from None
