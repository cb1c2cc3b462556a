"""Load the parts of a model that read images, if the model has them and the packages for them are
installed.
"""

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
    """The parts of a model that turn image files into inputs for its vision tower. The tower itself need not
    be loaded. `versions` names the releases of the packages that decode and process images.
    """

    folder: Path
    config: Mapping[str, Any]
    family: VisionFamily
    image_token: int
    processor: Any
    tokenizer: Any
    versions: str

    def new_reader(self) -> ImageReader:
        """Return an ImageReader, which only one thread may use."""
        from mlx_server.engine.vision.processor import ImageReader

        return ImageReader(self.processor, self.tokenizer, self.image_token, decode, self.versions)


def read_image_support(folder: Path, config: Mapping[str, Any], tokenizer: Any) -> ImageSupport | str:
    """Return the parts that read images for the model in `folder`, or a text that says why the model cannot
    read images.

    `tokenizer` is the model's transformers tokenizer. This takes up to seconds, and any thread may call it.
    """
    if not config.get("vision_config"):  # as for most models, whose files need not be read again then
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
        ready.new_reader()  # raises an error if the processor has no marker for images
    except Exception as error:  # the files of a processor may hold anything
        return _not_loaded(folder, "its image processor cannot be read", error)
    return ready


def load_vision_part(
    support: ImageSupport | str, text_model: Any
) -> tuple[ImageSupport | str, Vision | None]:
    """Load the vision part that belongs to `text_model`. Return `support` and the vision part, whose weights
    are read only when they are evaluated.

    If `support` is a text, which says why the model cannot read images, return this text and None. If the
    vision part cannot be loaded, return a text that says why, and None. In both cases, the model is served
    for text only.
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
