"""The families of vision models that are supported, and how each family's text model reads images. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class VisionFamily:
    """How a family's text model reads the tokens of an image.

    With `mrope`, each token of an image has a position in time, height and width, and the text after the
    image continues after the largest of these. With `interleaved`, the rotary frequencies belong to the three
    positions in turn; otherwise, each position has a contiguous section of the frequencies. With
    `both_directions`, the tokens of an image attend to each other in both directions.
    """

    mrope: bool = False
    interleaved: bool = False
    both_directions: bool = False


_PLAIN = VisionFamily()
FAMILIES: Mapping[str, VisionFamily] = {
    "gemma3": VisionFamily(both_directions=True),
    "idefics3": _PLAIN,
    "lfm2-vl": _PLAIN,
    "lfm2_vl": _PLAIN,
    "llava": _PLAIN,
    "mistral3": _PLAIN,
    "pixtral": _PLAIN,
    "qwen2_vl": VisionFamily(mrope=True),
    "qwen2_5_vl": VisionFamily(mrope=True),
    "qwen3_vl": VisionFamily(mrope=True, interleaved=True),
    "qwen3_vl_moe": VisionFamily(mrope=True, interleaved=True),
    "qwen3_5": VisionFamily(mrope=True, interleaved=True),
    "qwen3_5_moe": VisionFamily(mrope=True, interleaved=True),
    "smolvlm": _PLAIN,
}
"""By `model_type`: the supported families, whose answers were compared with mlx-vlm's."""


def image_token_id(config: Mapping[str, Any]) -> int | None:
    """Return the id of the token that stands for a part of an image in a prompt; None if `config` does not
    name it.
    """
    value = config.get("image_token_id", config.get("image_token_index"))
    return value if isinstance(value, int) else None
