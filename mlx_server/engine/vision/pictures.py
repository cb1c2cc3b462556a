"""The images of one prompt: the data about each image, and where its tokens are. Pure."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mlx_server.engine.errors import RequestError

_FIRST_KEY = 1 << 62
"""Larger than every token id, so that the key of an image never equals a token id."""


@dataclass(frozen=True)
class Picture:
    """An image as a model's processor has processed it.

    `digest` is a SHA-256 over its file, and over everything else on which its pixels depend. `ids` are the
    tokens that represent it in a prompt, and `text` is their text. `image_tokens` is the number of those
    tokens whose embeddings come from the vision tower. `grid` is the number of patches in time, height and
    width; None for a model in which an image's tokens have consecutive positions like other tokens. `pixels`
    is the shape of the tower's main input. `inputs` are all inputs for the tower, by name (numpy arrays);
    None if they were discarded.
    """

    digest: bytes
    text: str
    ids: tuple[int, ...]
    image_tokens: int
    grid: tuple[int, int, int] | None = None
    pixels: tuple[int, ...] = ()
    inputs: dict[str, Any] | None = field(default=None, compare=False, repr=False)

    @property
    def key(self) -> int:
        """Return the number that replaces each of the image's tokens in the keys of the prompt cache. It is a
        hash of `digest` and of the number of `ids`, which may change with the processor's configuration.
        """
        whole = hashlib.sha256(self.digest + len(self.ids).to_bytes(8, "big")).digest()
        return _FIRST_KEY | int.from_bytes(whole[:7], "big")


@dataclass(frozen=True)
class PlacedPicture:
    """Image `number` of a request, and its place in the prompt. Its first embedding belongs to token `start`,
    and its last to token `end` - 1.
    """

    picture: Picture
    number: int
    start: int
    end: int


def place(
    pictures: Sequence[Picture],
    numbers: Sequence[int],
    tokens: Sequence[int],
    image_token: int,
    begin: int = 0,
) -> tuple[PlacedPicture, ...]:
    """Return where the images of a prompt are in its `tokens`, searching from token `begin` on. `numbers` are
    the indices in `pictures` of these images, in the order of the prompt. `image_token` is the id of the
    token that stands for a part of an image.

    Raises RequestError if the number of image tokens in `tokens` differs from what the pictures need. This
    happens if a text contains the name of the image token.
    """
    positions = [at for at in range(begin, len(tokens)) if tokens[at] == image_token]
    if len(positions) != sum(pictures[number].image_tokens for number in numbers):
        raise RequestError(
            "invalid_request",
            "The texts contain the model's own marker of an image; remove it, or send it without images.",
        )
    placed, done = [], 0
    for number in numbers:
        picture = pictures[number]
        own = positions[done : done + picture.image_tokens]
        done += picture.image_tokens
        placed.append(PlacedPicture(picture, number, own[0], own[-1] + 1))
    return tuple(placed)


def cache_keys(tokens: Sequence[int], placed: Sequence[PlacedPicture]) -> Sequence[int]:
    """Return `tokens` as the prompt cache uses them for its keys: each token of an image is replaced by the
    image's key.
    """
    if not placed:
        return tokens
    keys = list(tokens)
    for one in placed:
        end = min(one.end, len(keys))
        keys[one.start : end] = [one.picture.key] * (end - one.start)
    return keys


def without_inputs(placed: Sequence[PlacedPicture]) -> tuple[PlacedPicture, ...]:
    """Return the images without their inputs for the vision tower. This frees the memory of the inputs, which
    are not needed any more once the tower has computed the features of the images.
    """
    return tuple(replace(one, picture=replace(one.picture, inputs=None)) for one in placed)


def number_images(messages: Sequence[dict[str, Any]], images: int) -> tuple[dict[str, Any], ...]:
    """Return the messages with an `index` in each image part, so that the images can be identified after a
    chat was shortened.

    Raises RequestError if the number of image parts is not `images`.
    """
    numbers = itertools.count()

    def numbered(message: dict[str, Any]) -> dict[str, Any]:
        content = message.get("content")
        if not isinstance(content, list):
            return message
        parts = [{"type": "image", "index": next(numbers)} if is_image(part) else part for part in content]
        return {**message, "content": parts}

    whole = tuple(numbered(message) for message in messages)
    if (count := next(numbers)) != images:
        raise RequestError(
            "invalid_request", f"The messages have {count} image parts, and {images} images were sent."
        )
    return whole


def image_order(messages: Sequence[dict[str, Any]]) -> list[int]:
    """Return the `index` of each image part in the messages, in the order of the parts. The index is the
    number of the part's image among the images of the request (`number_images`).
    """
    contents = [message.get("content") for message in messages]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    return [part["index"] for part in parts if is_image(part) and "index" in part]


def without_numbers(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the messages in the form that chat templates expect: without the `index` that `number_images`
    adds to each image part.
    """
    return [_without_numbers(message) for message in messages]


def _without_numbers(message: dict[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    if not isinstance(content, list):
        return message
    return {**message, "content": [{"type": "image"} if is_image(part) else part for part in content]}


def is_image(part: Any) -> bool:
    """Return whether a part of a message's content is an image."""
    return isinstance(part, dict) and part.get("type") == "image"


def with_markers(messages: Sequence[dict[str, Any]], marker: str) -> list[dict[str, Any]]:
    """Return the messages with texts instead of content parts, for templates that do not understand parts.
    Each image part becomes the `marker` on a line of its own.
    """
    return [_with_markers(message, marker) for message in messages]


def _with_markers(message: dict[str, Any], marker: str) -> dict[str, Any]:
    content = message.get("content")
    if not isinstance(content, list):
        return message
    texts = (f"{marker}\n" if is_image(part) else str(part.get("text") or "") for part in content)
    return {**message, "content": "".join(texts)}
