"""Where the images of a prompt are, and under which keys and at which positions they are cached."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mlx_server.engine.errors import RequestError
from mlx_server.engine.vision.feature_cache import FeatureCache, ImageFeatures
from mlx_server.engine.vision.pictures import (
    Picture,
    cache_keys,
    image_order,
    number_images,
    place,
    with_markers,
    without_numbers,
)
from mlx_server.engine.vision.positions import mrope_positions

IMAGE, ROW = 99, 98


def picture(digest: bytes, *ids: int, grid: tuple[int, int, int] | None = None) -> Picture:
    return Picture(digest, "", ids, ids.count(IMAGE), grid)


ONE, TWO = picture(b"one", IMAGE, ROW, IMAGE), picture(b"two", IMAGE, IMAGE, grid=(1, 2, 4))


def test_image_positions_in_a_prompt_are_found_with_other_tokens_between_image_tokens():
    tokens = [1, IMAGE, ROW, IMAGE, 2, IMAGE, IMAGE, 3]
    assert [(p.number, p.start, p.end) for p in place([ONE, TWO], [0, 1], tokens, IMAGE)] == [
        (0, 1, 4),
        (1, 5, 7),
    ]


def test_image_positions_in_a_shortened_chat_belong_to_the_remaining_images():
    (placed,) = place([ONE, TWO], [1], [1, IMAGE, IMAGE, 3], IMAGE)
    assert (placed.picture, placed.number, placed.start) == (TWO, 1, 1)


def test_images_are_placed_only_at_image_tokens_that_follow_the_tokens_of_an_earlier_context():
    (placed,) = place([TWO], [0], [IMAGE, 1, IMAGE, IMAGE, 3], IMAGE, begin=2)
    assert placed.start == 2


def test_image_tokens_contained_in_a_text_are_refused():
    with pytest.raises(RequestError, match="marker"):
        place([TWO], [0], [IMAGE, 1, IMAGE, IMAGE, 3], IMAGE)


def test_cache_keys_of_image_tokens_differ_by_image_content_and_are_no_token_ids():
    tokens = [1, IMAGE, IMAGE, 3]
    other = picture(b"TWO", IMAGE, IMAGE)
    keys = [cache_keys(tokens, place([each], [0], tokens, IMAGE)) for each in (TWO, other)]
    assert keys[0] != keys[1]
    assert [key[0] for key in keys] == [1, 1]
    assert all(min(key[1:3]) > 1 << 40 and key[3] == 3 for key in keys)
    assert cache_keys(tokens, ()) is tokens


def test_cache_keys_of_a_partial_prompt_with_images_are_a_prefix_of_the_keys_of_the_whole_prompt():
    tokens = [1, IMAGE, IMAGE, 3]
    placed = place([TWO], [0], tokens, IMAGE)
    assert cache_keys(tokens[:2], placed) == cache_keys(tokens, placed)[:2]


def test_images_are_numbered_through_all_messages_but_passed_to_templates_without_numbers():
    image, text = {"type": "image"}, {"type": "text", "text": "and"}
    messages: list[dict[str, Any]] = [
        {"content": [image, text, image]},
        {"content": "no"},
        {"content": [image]},
    ]
    numbered = number_images(messages, 3)
    assert image_order(numbered) == [0, 1, 2]
    assert image_order(numbered[2:]) == [2]
    assert without_numbers(numbered) == messages
    assert with_markers(numbered, "<i>")[0]["content"] == "<i>\nand<i>\n"


def test_images_that_differ_in_number_from_the_image_parts_of_messages_are_refused():
    with pytest.raises(RequestError, match="1 image parts, and 2"):
        number_images([{"content": [{"type": "image"}]}], 2)


def test_mrope_positions_of_an_image_follow_its_rows_and_columns_and_later_text_starts_after_the_largest():
    tokens = [1, 2, IMAGE, IMAGE, 3, 4]
    positions, offset = mrope_positions(6, place([TWO], [0], tokens, IMAGE), merge_size=2)
    assert positions.T.tolist() == [[0] * 3, [1] * 3, [2, 2, 2], [2, 2, 3], [4] * 3, [5] * 3]
    assert offset == 0
    wide = picture(b"wide", *[IMAGE] * 4, grid=(1, 4, 4))
    tokens = [1, *[IMAGE] * 4, 3, 4]
    positions, offset = mrope_positions(7, place([wide], [0], tokens, IMAGE), merge_size=2)
    assert positions[:, -2:].T.tolist() == [[3] * 3, [4] * 3]
    assert offset == -2


def test_image_feature_cache_over_its_byte_limit_evicts_the_least_recently_used_features():
    def features(size: int) -> ImageFeatures:
        return ImageFeatures(np.zeros(size, np.uint8))

    cache = FeatureCache(100)
    cache.put(1, features(40))
    cache.put(2, features(40))
    assert cache.get(1) is not None
    cache.put(3, features(40))
    assert (cache.get(2), cache.nbytes) == (None, 80)
    cache.put(4, features(101))
    assert (cache.get(4), cache.nbytes) == (None, 80)
