"""Decide from a model's files whether it reads images. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

FAMILIES = frozenset(
    {
        "gemma3",
        "idefics3",
        "lfm2-vl",
        "lfm2_vl",
        "llava",
        "mistral3",
        "pixtral",
        "qwen2_5_vl",
        "qwen2_vl",
        "qwen3_5",
        "qwen3_5_moe",
        "qwen3_vl",
        "qwen3_vl_moe",
        "smolvlm",
    }
)
"""The values of `model_type` in config.json of the families whose images the engine serves. Models of other
families are served for their text only."""

PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
"""The files that say how a model's images are resized and normalized; a model has one of them, or both."""

_TOWER_NAMES = frozenset({"vision_tower", "visual", "vision_model", "vision_encoder"})
"""Each tensor of the part that encodes images has one of these words, between dots, in its name."""


@dataclass(frozen=True)
class ImageSupport:
    """Whether a model reads images.

    If a model has a part for images but is served for text only, `reason` says why, as part of a sentence;
    else it is empty.
    """

    reads_images: bool = False
    reason: str = ""


def image_support(
    config: Mapping[str, Any], tensor_names: Collection[str], files: Collection[str]
) -> ImageSupport:
    """Return whether a model reads images, and, if it was made for images but is served for text only, why.

    `config` is its config.json, `tensor_names` are the names of its tensors, and `files` the names of the
    files in its folder.
    """
    if not isinstance(config.get("vision_config"), dict):
        return ImageSupport()
    family = str(config.get("model_type"))
    if family not in FAMILIES:
        return ImageSupport(False, f"images are not served here for models of the family {family[:40]}")
    if not any(_TOWER_NAMES & set(name.split(".")) for name in tensor_names):
        return ImageSupport(False, "its weights lack the part that encodes images")
    if not set(PROCESSOR_FILES) & set(files):
        return ImageSupport(False, f"its folder has no {' or '.join(PROCESSOR_FILES)}")
    return ImageSupport(True)
