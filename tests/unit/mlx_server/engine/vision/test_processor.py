"""Pictures are made from files by a model's processor, which is a fake here."""

from __future__ import annotations

import base64
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mlx_server.engine.errors import RequestError
from mlx_server.engine.vision.processor import MAX_IMAGE_TOKENS, ImageReader, _bound_tokens

IMAGE, START = 99, 1


class Tokenizer:
    """Makes a token of each letter, and an image token of "#"; begins every text with START."""

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        ids = [IMAGE if letter == "#" else ord(letter) for letter in text]
        return [START, *ids] if add_special_tokens else ids

    def decode(self, ids: list[int], **_: Any) -> str:
        return "".join("#" if token == IMAGE else chr(token) for token in ids)


class Processor:
    """Makes as many image tokens as the file has bytes; refuses empty files."""

    image_token = "#"

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, text: list[str], images: list[bytes]) -> dict[str, Any]:
        self.calls += 1
        if not images[0]:
            raise ValueError("the image has no width")
        ids = Tokenizer().encode(text[0].replace("#", "#" * len(images[0])))
        return {"input_ids": [ids], "attention_mask": [[1] * len(ids)], "pixel_values": np.zeros(3)}


def reader(processor: Processor) -> ImageReader:
    return ImageReader(processor, Tokenizer(), IMAGE, lambda data, most: data, "1.0")


def coded(*files: bytes) -> list[str]:
    return [base64.b64encode(file).decode() for file in files]


def test_processed_image_has_its_image_tokens_without_the_bos_token():
    (picture,) = reader(Processor()).read(coded(b"abc"))
    assert (picture.ids, picture.text, picture.image_tokens) == ((IMAGE,) * 3, "###", 3)
    assert picture.inputs is not None
    assert set(picture.inputs) == {"pixel_values"}


def test_image_seen_before_is_not_processed_again_until_the_vision_tower_needs_it():
    processor = Processor()
    images = reader(processor)
    first, again = images.read(coded(b"abc", b"abc"))
    assert processor.calls == 1
    assert (first, again.inputs) == (again, None)
    assert set(images.inputs_of(coded(b"abc")[0])) == {"pixel_values"}


def test_images_with_other_bytes_or_processor_versions_have_other_cache_keys():
    one, other = reader(Processor()).read(coded(b"abc", b"abd"))
    later = ImageReader(Processor(), Tokenizer(), IMAGE, lambda data, most: data, "2.0")
    assert len({one.key, other.key, later.read(coded(b"abc"))[0].key}) == 3


@pytest.mark.parametrize(("image", "reason"), [("%%%", "Image 1"), ("", "no width")])
def test_image_that_cannot_be_processed_is_refused_with_its_number(image, reason):
    with pytest.raises(RequestError, match=reason) as refused:
        reader(Processor()).read([*coded(b"abc"), image])
    assert refused.value.code == "invalid_request"


@pytest.mark.parametrize(("sizes", "is_refused"), [((8, 8), False), ((1, 480), True)])
def test_image_with_more_patches_than_the_vision_tower_takes_is_refused(sizes, is_refused):
    """An image of 1 by 900 pixels failed in LFM2-VL's tower: a 500, which clients repeat."""

    class WithPatches(Processor):
        def __call__(self, text: list[str], images: list[bytes]) -> dict[str, Any]:
            made = super().__call__(text, images)
            return made | {"pixel_values": np.zeros((1, 64, 192)), "spatial_shapes": np.array([sizes])}

    images = reader(WithPatches())
    if not is_refused:
        assert len(images.read(coded(b"abc"))) == 1
        return
    with pytest.raises(RequestError, match="480 patches, and the model takes 64"):
        images.read(coded(b"abc"))


def test_image_size_limit_of_a_processor_is_lowered_only_if_it_allows_too_many_tokens():
    """Qwen2.5-VL's files allow 12,845,056 pixels, which are 16,384 tokens: too many for one step."""
    large = SimpleNamespace(max_pixels=12_845_056, patch_size=14, merge_size=2)
    _bound_tokens(large)
    assert large.max_pixels == MAX_IMAGE_TOKENS * 28 * 28
    small = SimpleNamespace(max_pixels=28 * 28, patch_size=14, merge_size=2)
    _bound_tokens(small)
    assert small.max_pixels == 28 * 28
