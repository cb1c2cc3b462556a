"""Load what a model needs to read images, if it can and if the packages for it are installed."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_server.engine.images import decode
from mlx_server.engine.log import log_event
from mlx_server.engine.vision.families import FAMILIES, VisionFamily, image_token_id
from mlx_server.model_store.files import weight_files
from mlx_server.model_store.files.image_support import image_support

if TYPE_CHECKING:  # imported only for a model with a vision part
    from mlx_server.engine.vision.processor import ImageReader
    from mlx_server.engine.vision.vision import Vision

TEXT_ONLY = "it reads text only"
NOT_INSTALLED = (
    "the packages that read images are not installed; `vestal up` installs them for models that read images, "
    "and so does `deploy/bootstrap.sh vision`"
)
_VERSIONS = ("mlx-vlm", "pillow")


@dataclass(frozen=True)
class ImageSupport:
    """The parts of a model that turn image files into its tower's inputs; the tower need not be loaded."""

    folder: Path
    config: Mapping[str, Any]
    family: VisionFamily
    image_token: int
    processor: Any
    tokenizer: Any
    versions: str

    def new_reader(self) -> ImageReader:
        """Return a reader of images for one thread."""
        from mlx_server.engine.vision.processor import ImageReader

        return ImageReader(self.processor, self.tokenizer, self.image_token, decode, self.versions)


def read_image_support(folder: Path, config: Mapping[str, Any], tokenizer: Any) -> ImageSupport | str:
    """Return what reads images for the model in `folder`, or a text: the reason why it gets no images.

    `tokenizer` is that of transformers. This takes up to seconds, and any thread may call it.
    """
    if not config.get("vision_config"):  # most models: their files need not be read again
        return TEXT_ONLY
    support = image_support(
        config, weight_files.read_headers(folder), [path.name for path in folder.iterdir()]
    )
    family, image_token = FAMILIES.get(str(config.get("model_type"))), image_token_id(config)
    if not support.reads_images or family is None or image_token is None:
        return support.reason or TEXT_ONLY
    try:
        from mlx_server.engine.vision.processor import load_processor
        from mlx_server.engine.vision.tower import import_mlx_vlm

        versions = [f"{name} {importlib.metadata.version(name)}" for name in _VERSIONS]
        import_mlx_vlm().get_model_and_args(dict(config))  # registers the processor of the family
    except ImportError:
        return NOT_INSTALLED
    try:
        processor = load_processor(folder, tokenizer)
        ready = ImageSupport(folder, config, family, image_token, processor, tokenizer, " ".join(versions))
        ready.new_reader()  # raises an error for a processor without a marker of images
    except Exception as error:  # the files of a processor may hold anything
        return _not_loaded(folder, "its image processor cannot be read", error)
    return ready


def load_vision_part(
    support: ImageSupport | str, text_model: Any
) -> tuple[ImageSupport | str, Vision | None]:
    """Return the vision part that belongs to `text_model`, whose weights are not evaluated yet.

    If it cannot be loaded, return the reason and None: the model is served for its text, as it would be
    without a vision part.
    """
    if isinstance(support, str):
        return support, None
    from mlx_server.engine.vision.vision import load_vision

    try:
        return support, load_vision(
            support.folder, support.config, support.family, text_model, support.image_token, support.processor
        )
    except Exception as error:  # mlx-vlm may raise any exception for weights that it does not know
        return _not_loaded(support.folder, "the part that encodes images cannot be loaded", error), None


def _not_loaded(folder: Path, what: str, error: Exception) -> str:
    cause = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    log_event("vision_not_loaded", cause=cause, folder=folder.name)
    return f"{what} ({cause})"
