"""Collect the images of one request, and return the parts of messages that represent them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mlx_server.gateway.errors import BadRequest, quoted
from mlx_server.gateway.images.files import ImageLimits, image_file, is_address, refused, too_many

IMAGE: dict[str, Any] = {"type": "image"}
"""The part of a message that represents the next image of the request."""
READING_ROLES = ("user", "tool")
"""The roles of the messages in which a model sees images. Templates accept no images in messages of other
roles."""

Content = str | list[dict[str, Any]]
"""The content of a message: text, or a list of parts if it holds images."""


class ImageReader:
    """Collects the images of one request. `model` is the model's name as the client spelled it, for errors.

    `limits` are the limits on the number and the size of the images; None stands for the defaults of
    `ImageLimits`. `reads_images` says whether the model can read images on this server. If it cannot, callers
    must not `take` an image, but raise the error that `refusal` returns, or replace the image by a sentence.
    `reason` explains in this error why a model that was made for images reads text only on this server; it is
    empty for any other model. `files` are the images, in base64, in the order in which they occur in the
    messages.
    """

    def __init__(
        self,
        model: str,
        limits: ImageLimits | None = None,
        *,
        reads_images: bool = False,
        reason: str = "",
    ) -> None:
        self.model = model
        self.reads_images = reads_images
        self._reason = reason
        self._limits = limits or ImageLimits()
        self._files: list[str] = []

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(self._files)

    def reads_in(self, role: str) -> bool:
        """Return whether the model sees images in messages of this role."""
        return self.reads_images and role in READING_ROLES

    def take(self, field: str, source: object) -> dict[str, Any]:
        """Add the next image, and return the part of the message that represents it. `source` is the image as
        base64 or as a data URL.

        Raises BadRequest, which names the body's `field`, if there are too many images or this one cannot be
        used.
        """
        if not isinstance(source, str) or not source:
            raise refused(field, "is missing; send its file in base64 (there is no files API here)")
        if len(self._files) >= self._limits.max_images:
            raise too_many(field, self._limits.max_images)
        if is_address(source) and not self._limits.fetches_urls:
            remedy = "send the image itself as a data URL, or switch mlx.image_urls on"
            message = f"{field}: images are not fetched from addresses here; {remedy}"
            raise BadRequest("not_supported", message, field=field)
        self._files.append(image_file(field, source, self._limits))
        return IMAGE

    def refusal(self, field: str, part_type: str) -> BadRequest:
        """Return the error for a part of a message that the model cannot read. `field` is the path in the
        body that the error names. `part_type` is the part's type, or `images` for Ollama's field of that
        name.

        Callers raise the error only for a part of the last turn. They replace a part of an earlier turn by a
        sentence instead, so that the conversation can continue.
        """
        remedy = (
            "leave out `images`"
            if part_type == "images"
            else f"leave out the part of type {quoted(part_type)}"
        )
        if part_type not in IMAGE_TYPES or not self._reason:
            kind = "reads text and images only" if self.reads_images else "reads text only"
            return BadRequest("not_supported", f"{field}: model {self.model!r} {kind}; {remedy}", field=field)
        message = f"{field}: model {self.model!r} reads text only here, as {self._reason}; {remedy}"
        return BadRequest("not_supported", message, field=field)


IMAGE_TYPES = ("image", "image_url", "input_image", "images")
"""The types that image parts have in the dialects."""


def joined(parts: Iterable[str | dict[str, Any]]) -> Content:
    """Return a message's content made of these texts and images, in their order. The content is a string if
    there are only texts.
    """
    content: list[dict[str, Any]] = []
    for part in parts:
        if isinstance(part, dict):
            content.append(part)
        elif part and content and content[-1]["type"] == "text":
            content[-1] = {"type": "text", "text": content[-1]["text"] + part}
        elif part:
            content.append({"type": "text", "text": part})
    if all(part["type"] == "text" for part in content):
        return "".join(part["text"] for part in content)
    return content


def text_of_content(content: Content) -> str:
    """Return the text of a message's content, without its images."""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


def parts_of(content: Content) -> list[str | dict[str, Any]]:
    """Return the texts and images of a message's content in the form that `joined` accepts."""
    if isinstance(content, str):
        return [content]
    return [part["text"] if part["type"] == "text" else part for part in content]
