"""Prepare the images of a chat: fetch those that a body names by URL, and create the request's `ImageReader`,
which collects the images for the engine if the model can read them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel
from starlette.requests import HTTPConnection

from mlx_server.gateway.dialects.body_budget import share_of
from mlx_server.gateway.dialects.context import GatewayContext
from mlx_server.gateway.images.files import ImageLimits, too_many
from mlx_server.gateway.images.in_bodies import addresses_in, with_files
from mlx_server.gateway.images.reader import ImageReader
from mlx_server.gateway.json_text import json_bytes
from mlx_server.gateway.kept_answers.kept_answer import kept_answer_of
from mlx_server.model_store import ModelEntry
from mlx_server.model_store.image_packages import missing_image_packages, reads_heic
from vestal.config.settings.mlx import MlxSection
from vestal.web.json_body import parse_object

if TYPE_CHECKING:
    from mlx_server.gateway.images.fetch import ImageFetcher, Reserve

MISSING = "the packages for images are not installed (`vestal up` fetches them)"
_BodyT = TypeVar("_BodyT", bound=BaseModel)


def image_reader(context: GatewayContext, model: ModelEntry, spelled: str) -> ImageReader:
    """Return the `ImageReader` of one request, which knows whether the model and this installation can read
    images. `spelled` is the model's name as the client wrote it.
    """
    if "vision" not in model.capabilities:
        return ImageReader(spelled, reason=model.no_images_reason)
    if missing_image_packages():
        return ImageReader(spelled, reason=MISSING)
    return ImageReader(spelled, image_limits(context.config.mlx), reads_images=True)


def image_limits(mlx: MlxSection) -> ImageLimits:
    """Return the limits on images that the settings define."""
    return ImageLimits(
        max_images=mlx.max_images,
        max_bytes=mlx.max_image_bytes,
        max_pixels=mlx.max_image_pixels,
        reads_heic=reads_heic(),
        fetches_urls=mlx.image_urls,
    )


async def with_images(
    context: GatewayContext,
    http: HTTPConnection,
    model: ModelEntry,
    body: _BodyT,
    make_fetcher: Callable[[int, int, Reserve], ImageFetcher] | None = None,
) -> _BodyT:
    """Fetch the images that the body names by URL, and return the body with the files in place of the URLs.
    Return the body unchanged if the settings forbid fetching, the model reads no images, or the body names
    none by URL.

    `make_fetcher` makes the `ImageFetcher` from the limit on the bytes of one image, the limit on the bytes
    of all images together, and a function that reserves memory for them. None stands for the class itself.
    Unless the answer log already has the request's body, it will store the body with the files, so that a
    resumed request fetches nothing again. Raises GatewayError if there are too many images, if one cannot be
    fetched, or if there is no memory for them.
    """
    mlx = context.config.mlx
    if not mlx.image_urls or not image_reader(context, model, model.name).reads_images:
        return body
    if not (sources := addresses_in(body)):
        return body
    if len(sources) > mlx.max_images:
        raise too_many(sources[-1][0], mlx.max_images)
    share = share_of(http)
    held_bytes = share.held_bytes
    room_bytes = (mlx.max_body_bytes - held_bytes) * 3 // 4  # base64 makes them longer

    async def reserve(size_bytes: int) -> None:
        await share.cover(held_bytes + size_bytes * 4 // 3)

    files = await (make_fetcher or _fetcher_class())(mlx.max_image_bytes, room_bytes, reserve).fetch(sources)
    kept = kept_answer_of(http.scope)
    if kept is not None and not kept.is_written_down:
        written = await asyncio.to_thread(_written_anew, kept.body.peek(), files)
        kept.body.replace(written)
    whole = await asyncio.to_thread(with_files, body, files)
    assert isinstance(whole, type(body))
    return whole


def _fetcher_class() -> type[ImageFetcher]:
    from mlx_server.gateway.images.fetch import ImageFetcher  # its aiohttp takes 9 MB of memory

    return ImageFetcher


def _written_anew(raw: bytes, files: dict[str, bytes]) -> bytes:
    """Return the JSON body `raw` as JSON in which each image URL that is a key of `files` is replaced by a
    data URL with that file in base64.
    """
    return json_bytes(with_files(parse_object(raw, stepwise=True, replaces_surrogates=True), files))
