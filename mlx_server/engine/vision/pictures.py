"""The images of one prompt: what each one is, and where its tokens stand. Pure."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mlx_server.engine.errors import RequestError

_FIRST_KEY = 1 << 62
"""Above every token id, so that the key of an image is never that of a text."""


@dataclass(frozen=True)
class Picture:
    """An image as one model's processor has read it.

    `digest` is a SHA-256 over its file, and over what else its pixels depend on. `ids` are the tokens that
    stand for it in a prompt, and `text` is what the tokenizer makes them of; `image_tokens` of them get their
    embeddings from the tower. `grid` is the number of patches in time, height and width, if the model's
    positions need it. `pixels` is the shape of the tower's main input. `inputs` are the processor's other
    outputs, for the tower (numpy arrays).
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
        """Return the number that takes the place of the image's tokens in the keys of the prompt cache.

        It covers the number of tokens too, because a processor may be configured differently.
        """
        whole = hashlib.sha256(self.digest + len(self.ids).to_bytes(8, "big")).digest()
        return _FIRST_KEY | int.from_bytes(whole[:7], "big")


@dataclass(frozen=True)
class PlacedPicture:
    """Image `number` of a request: its first embedding is that of token `start` of the prompt, and its last
    that before `end`.
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
    """Return where the pictures with these `numbers` stand in `tokens`, from token `begin` on.

    Raises RequestError if `tokens` has another number of image tokens than the pictures: a text may contain
    the name of the token.
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
    """Return `tokens` for the keys of the prompt cache: those of an image are replaced by the image's key."""
    if not placed:
        return tokens
    keys = list(tokens)
    for one in placed:
        end = min(one.end, len(keys))
        keys[one.start : end] = [one.picture.key] * (end - one.start)
    return keys


def without_inputs(placed: Sequence[PlacedPicture]) -> tuple[PlacedPicture, ...]:
    """Return the pictures without the inputs of the tower, which are large and no longer needed."""
    return tuple(replace(one, picture=replace(one.picture, inputs=None)) for one in placed)


def number_images(messages: Sequence[dict[str, Any]], images: int) -> tuple[dict[str, Any], ...]:
    """Return the messages with an `index` in each image part, so that a shortened chat knows its images.

    Raises RequestError if there are more or fewer parts than `images`.
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
    """Return the index of each image in numbered messages, in order."""
    contents = [message.get("content") for message in messages]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    return [part["index"] for part in parts if is_image(part) and "index" in part]


def without_numbers(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the messages with image parts as templates expect them."""
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
    """Return the messages with texts for contents, for templates that know no parts: each image part becomes
    the `marker`, on a line of its own.
    """
    return [_with_markers(message, marker) for message in messages]


def _with_markers(message: dict[str, Any], marker: str) -> dict[str, Any]:
    content = message.get("content")
    if not isinstance(content, list):
        return message
    texts = (f"{marker}\n" if is_image(part) else str(part.get("text") or "") for part in content)
    return {**message, "content": "".join(texts)}
