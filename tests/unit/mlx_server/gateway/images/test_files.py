"""Image files as clients write them become standard base64, or a refusal that names the field."""

from __future__ import annotations

import base64
import textwrap

import pytest

from mlx_server.gateway.errors import BadRequest
from mlx_server.gateway.images.files import ImageLimits, image_file
from tests.unit.mlx_server.gateway.images.test_headers import heic, saved

DATA = saved("PNG", (5, 4))
TEXT = base64.b64encode(DATA).decode()
JPEG = saved("JPEG", (5, 4))


@pytest.mark.parametrize(
    "source",
    [
        TEXT,
        TEXT.rstrip("="),
        "\r\n".join(textwrap.wrap(TEXT, 76)) + "\n",
        base64.urlsafe_b64encode(DATA).decode(),
        f"data:image/png;base64,{TEXT}",
        f"DATA:image/jpeg;charset=utf-8;BASE64,{TEXT}",  # the declared type is wrong, and is not looked at
        f"data:;base64,{TEXT}",
        "data:image/png;base64," + TEXT.replace("+", "%2B").replace("/", "%2F"),
    ],
)
def test_image_in_any_accepted_base64_variant_or_data_url_is_converted_to_standard_base64(source: str):
    assert base64.b64decode(image_file("images.0", source, ImageLimits()), validate=True) == DATA


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("%%%", "is not base64"),
        ("AAAAA", "is not base64"),
        ("böse", "is not base64"),
        ("data:image/png;base64,", "is empty"),
        ("data:image/png,%89PNG", "without base64"),
        ("data:image/png;base64", "without base64"),
        ("file:///etc/passwd", "address that is not fetched"),
        (base64.b64encode(b"%PDF-1.4 and more").decode(), "is not a PNG, JPEG"),
        (base64.b64encode(DATA[:-8]).decode(), "cut off"),
    ],
)
def test_broken_image_is_refused_with_the_name_of_its_field(source: str, reason: str):
    with pytest.raises(BadRequest, match=rf"^images\.0: the image .*{reason}") as refused:
        image_file("images.0", source, ImageLimits())
    assert refused.value.code == "invalid_request" and refused.value.fields["field"] == "images.0"
    assert len(str(refused.value)) < 300


def test_image_over_the_limit_of_bytes_or_of_pixels_in_its_header_is_refused():
    bomb = DATA.replace((5).to_bytes(4), (60_000).to_bytes(4), 1).replace(
        (4).to_bytes(4), (60_000).to_bytes(4), 1
    )
    with pytest.raises(BadRequest, match=r"60000 x 60000 pixels, and 50000000 are the most"):
        image_file("f", base64.b64encode(bomb).decode(), ImageLimits())
    with pytest.raises(BadRequest, match=r"over 60 bytes \(mlx.max_image_bytes\)"):
        image_file("f", TEXT, ImageLimits(max_bytes=60))
    assert image_file("f", TEXT, ImageLimits(max_bytes=len(DATA), max_pixels=20)) == TEXT


def test_heic_image_is_accepted_only_where_it_can_be_decoded():
    source = base64.b64encode(heic((40, 30))).decode()
    with pytest.raises(BadRequest, match="pillow-heif") as refused:
        image_file("f", source, ImageLimits())
    assert refused.value.code == "not_supported"
    assert image_file("f", source, ImageLimits(reads_heic=True)) == source
