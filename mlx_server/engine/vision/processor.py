"""Process image files with a model's processor, on the model's tokenizer thread."""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mlx_server.engine.errors import RequestError
from mlx_server.engine.images import MAX_PIXELS
from mlx_server.engine.vision.pictures import Picture

Decode = Callable[[bytes, int], Any]
"""Decodes a file's bytes to a Pillow image in RGB. The second argument is how many pixels the image may have
at most. Raises RequestError if the file cannot be decoded or has more pixels."""

MAX_IMAGE_TOKENS = 4096
"""The most tokens of an image. The files of Qwen2.5-VL allow 16,384, but other requests wait while a layer of
the tower is computed, and an engine that shows no progress for 30 s (`mlx.progress_timeout_s`) is regarded as
wedged."""

MAX_KNOWN = 256
"""For how many images the tokens are cached, so that the next turn of a chat need not decode its images."""

_OF_TEXT = frozenset({"input_ids", "attention_mask", "token_type_ids"})


class ImageReader:
    """Processes image files with one model's processor. Only one thread may use an ImageReader.

    `image_token` is the id of the token that stands for a part of an image in a prompt, and `decode` makes a
    Pillow image of a file. `versions` names the releases of the libraries that decode and process images. It
    is part of each Picture's `digest`, because another release may decode a file to other pixels.
    """

    def __init__(
        self, processor: Any, tokenizer: Any, image_token: int, decode: Decode, versions: str = ""
    ) -> None:
        self._processor, self._tokenizer, self._decode = processor, tokenizer, decode
        self._versions = versions.encode()
        self.max_pixels = MAX_PIXELS
        self.image_token = image_token
        self.marker = str(getattr(processor, "boi_token", None) or processor.image_token)
        """The text that a chat template writes in place of an image."""
        self._known: OrderedDict[bytes, Picture] = OrderedDict()

    def read(self, images: Sequence[str]) -> list[Picture]:
        """Return a Picture for each of the `images`, which are files in base64. A Picture's `inputs` are None
        if the same image was read recently; `inputs_of` makes them again. Raises RequestError, which names
        the image by its number, if an image cannot be decoded or processed.
        """
        return [self._read(image, number) for number, image in enumerate(images)]

    def _read(self, image: str, number: int) -> Picture:
        try:
            data = base64.b64decode(image, validate=True)
        except (binascii.Error, ValueError) as error:
            raise _unreadable(number, error) from error
        digest = self._digest(data)
        if (known := self._known.get(digest)) is not None:
            self._known.move_to_end(digest)
            return replace(known, inputs=None)
        try:
            picture = self._process(digest, data)
        except (RequestError, ValueError) as error:  # a processor may refuse the shape of an image
            raise _unreadable(number, error) from error
        self._known[digest] = replace(picture, inputs=None)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        return picture

    def inputs_of(self, image: str) -> dict[str, Any]:
        """Return the tower's inputs by name (numpy arrays) for a base64 image that `read` has accepted
        before.
        """
        data = base64.b64decode(image)
        inputs = self._process(self._digest(data), data).inputs
        assert inputs is not None
        return inputs

    def _digest(self, data: bytes) -> bytes:
        return hashlib.sha256(self._versions + b"\n" + data).digest()

    def _process(self, digest: bytes, data: bytes) -> Picture:
        """Return the Picture of the image file `data` with this digest. Each image is processed separately,
        so that its tokens do not depend on the other images of the prompt.
        """
        made = dict(self._processor(text=[self.marker], images=[self._decode(data, self.max_pixels)]))
        ids = self._without_special_tokens(np.asarray(made["input_ids"]).reshape(-1).tolist())
        inputs = {name: _numpy(value) for name, value in made.items() if name not in _OF_TEXT}
        _check_patches(inputs)
        grid = inputs.get("image_grid_thw")
        return Picture(
            digest,
            str(self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)),
            tuple(ids),
            ids.count(self.image_token),
            None if grid is None else tuple(int(size) for size in np.asarray(grid).reshape(-1)[:3]),  # type: ignore[arg-type]
            _shape(inputs.get("pixel_values")),
            inputs,
        )

    def _without_special_tokens(self, ids: list[int]) -> list[int]:
        """Return `ids` without the tokens that the tokenizer puts before and after every text."""
        bare = self._tokenizer.encode(self.marker, add_special_tokens=False)
        whole = self._tokenizer.encode(self.marker)
        before = next((at for at in range(len(whole)) if whole[at : at + len(bare)] == bare), 0)
        after = len(whole) - before - len(bare)
        return ids[before : len(ids) - after]


def _check_patches(inputs: Mapping[str, Any]) -> None:
    """Raise ValueError if an image of LFM2-VL has more patches than its tower takes. Its processor makes them
    of an image that is many times as long as wide, for which the tower fails.
    """
    pixels = inputs.get("pixel_values")
    if "spatial_shapes" not in inputs or pixels is None or pixels.ndim != 3:
        return
    patches, most = int(np.prod(inputs["spatial_shapes"], axis=-1).max()), pixels.shape[1]
    if patches > most:
        raise ValueError(f"it is too long for its width: {patches} patches, and the model takes {most}")


def _numpy(value: Any) -> Any:
    """Convert an MLX array to a numpy array, since only the MLX thread may use MLX arrays. Other values are
    returned unchanged.
    """
    return np.array(value) if hasattr(value, "shape") and not isinstance(value, np.ndarray) else value


def _shape(pixels: Any) -> tuple[int, ...]:
    """Return the shape of an array of pixels. For a list of arrays, return its length followed by the shape
    of its largest array.
    """
    if isinstance(pixels, list):
        return (len(pixels), *max((_shape(each) for each in pixels), key=math.prod, default=()))
    return tuple(int(size) for size in getattr(pixels, "shape", ()))


def _unreadable(number: int, error: Exception) -> RequestError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return RequestError("invalid_request", f"Image {number} cannot be used: {reason.removesuffix('.')}.")


def load_processor(folder: Path, tokenizer: Any) -> Any:
    """Return the processor of the model in `folder`, which uses the given tokenizer.

    Code that comes with a model is not run. Any exception may be raised if the files do not match each other.
    """
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    processor.tokenizer = tokenizer
    _bound_tokens(processor.image_processor)
    return processor


def _bound_tokens(image_processor: Any) -> None:
    """Limit each image to MAX_IMAGE_TOKENS tokens, by having the processor shrink larger images."""
    if (most := getattr(image_processor, "max_pixels", None)) is not None:
        side = image_processor.patch_size * getattr(image_processor, "merge_size", 1)
        image_processor.max_pixels = min(most, MAX_IMAGE_TOKENS * side**2)
