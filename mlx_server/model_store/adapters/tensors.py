"""Interpret the names of an adapter's tensors in mlx-lm's form and in PEFT's, and compare their shapes with a
model's. Pure.

In mlx-lm's form, layer `L` with a weight of shape [out, in] has `L.lora_a` [in, rank], `L.lora_b` [rank, out]
and, for DoRA, `L.m` [out]. PEFT stores the first two transposed, under names of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Form = Literal["mlx-lm", "peft"]
Shape = tuple[int, ...]

_PEFT_PREFIX = "base_model.model."
_PEFT = re.compile(r"(?P<layer>.+)\.lora_(?P<part>A|B|magnitude_vector)(?:\.default)?(?:\.weight)?")
_NUMBERED = re.compile(r"\b\w+\.\d+\..+")
"""The part of a layer's name from its block on: `layers.3.mlp.up_proj`, `h.0.attn.c_attn`."""
_NOT_TEXT = ("vision_tower.", "vision_model.", "visual.", "audio_tower.", "multi_modal_projector.")
_EXPERTS = ("switch_mlp", "experts")
_EMBEDDINGS = ("embed_tokens", "embeddings", "wte", "tok_embeddings", "word_embeddings")


@dataclass(frozen=True)
class AdapterTensor:
    """A tensor of an adapter: the `part` (`lora_a`, `lora_b` or `m`) of the adapted `layer`.

    `name` is its name in the file. The two dimensions of a `transposed` tensor are exchanged in comparison
    with mlx-lm's form.
    """

    name: str
    layer: str
    part: Literal["lora_a", "lora_b", "m"]
    transposed: bool = False

    def shape(self, stored: Iterable[int]) -> Shape:
        """Return the tensor's shape in mlx-lm's form; `stored` is its shape in the file."""
        dimensions = tuple(stored)
        return dimensions[::-1] if self.transposed else dimensions


def parse_tensor(name: str, form: Form) -> AdapterTensor | None:
    """Return the adapter tensor `name` with its layer and its part, which are parsed from the name; None if
    it is not part of an adapter that can be applied. `form` says whether the adapter's tensors have mlx-lm's
    names or PEFT's.
    """
    if form == "mlx-lm":
        layer, _, part = name.rpartition(".")
        if layer and part in ("lora_a", "lora_b", "m"):
            return AdapterTensor(name, layer, part)  # type: ignore[arg-type]
        return None
    if (match := _PEFT.fullmatch(name)) is None:
        return None
    layer = match["layer"].removeprefix(_PEFT_PREFIX)
    if match["part"] == "magnitude_vector":
        return AdapterTensor(name, layer, "m")
    return AdapterTensor(name, layer, "lora_a" if match["part"] == "A" else "lora_b", transposed=True)


def short_name(layer: str) -> str:
    """Return a layer's name without the prefix before its block, which differs between layouts.

    Examples: `language_model.model.layers.3.mlp.up_proj` → `layers.3.mlp.up_proj`, `model.embed_tokens` →
    `embed_tokens`.
    """
    numbered = _NUMBERED.search(layer)
    return numbered[0] if numbered else layer.rsplit(".", 1)[-1]


def layer_shapes(headers: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Shape]:
    """Return the shape of each layer's weight in a model, by the layer's name without the prefix before its
    block (see `short_name`). Layers for images and audio, and weights with one dimension, are left out.

    `headers` has the safetensors header entry of each tensor by its name. A quantized weight has the shape
    that it would have unquantized, which is computed with the group size in `config`, the content of
    config.json.
    """
    shapes: dict[str, Shape] = {}
    for name, entry in headers.items():
        layer, _, last = name.rpartition(".")
        if last != "weight" or layer.removeprefix("model.").startswith(_NOT_TEXT):
            continue
        shape = tuple(int(size) for size in entry["shape"])
        if len(shape) < 2:
            continue
        if (scales := headers.get(f"{layer}.scales")) is not None:
            shape = (*shape[:-1], int(scales["shape"][-1]) * _group_size(layer, config))
        shapes[short_name(layer)] = shape
    return shapes


def _group_size(layer: str, config: Mapping[str, Any]) -> int:
    whole = config.get("quantization")
    whole = whole if isinstance(whole, dict) else {}
    own = whole.get(layer)
    found = (own if isinstance(own, dict) else whole).get("group_size") or whole.get("group_size")
    return found if isinstance(found, int) and found > 0 else 64


def wrong_layer(layer: str, parts: Mapping[str, Shape], rank: int, known: Mapping[str, Shape]) -> str:
    """Return why an adapter of the rank `rank` cannot be added to `layer` of a model; "" if it can.

    `parts` maps the parts that the adapter has for this layer (`lora_a`, `lora_b`, `m`) to their shapes in
    mlx-lm's form. `known` is what `layer_shapes` returns for the model. The shapes for an expert layer are
    checked only when the model is loaded, because a file may hold each expert as a separate tensor.
    """
    for part in ("lora_a", "lora_b"):
        if part not in parts:
            return f"{layer} has no {part}"
    if len(parts["lora_a"]) == 2 and parts["lora_a"][1] != rank:
        return f"{layer}.lora_a has the rank {parts['lora_a'][1]}, and the configuration says {rank}"
    if any(part in layer for part in _EXPERTS):
        return ""
    weight = known.get(short_name(layer))
    if weight is None:
        return f"the model has no layer {layer}"
    for part, shape in parts.items():
        wanted = _wanted_shape(short_name(layer), part, weight, rank)
        if shape != wanted:
            return f"{layer}.{part} has the shape {list(shape)}, and the model needs {list(wanted)}"
    return ""


def _wanted_shape(layer: str, part: str, weight: Shape, rank: int) -> Shape:
    """Return the shape that `part` (`lora_a`, `lora_b` or `m`) of an adapter of the rank `rank` must have for
    a layer whose weight has the shape `weight`. `layer` is the layer's short name, by which an embedding is
    recognized.
    """
    *experts, outputs, inputs = weight
    if part == "m":
        return (outputs,)
    if layer in _EMBEDDINGS:
        inputs, outputs = outputs, inputs  # an embedding's weight has a row per token
    if experts:
        return (*experts, rank, inputs) if part == "lora_a" else (*experts, outputs, rank)
    return (inputs, rank) if part == "lora_a" else (rank, outputs)


def names_no_layer(keys: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return those of mlx-lm's `keys` (such as `self_attn.q_proj` or `lm_head`) that name no layer of a model
    with the layers `known`.
    """
    layers = set(known)
    inner = {re.sub(r"^\w+\.\d+\.", "", layer) for layer in layers}
    return [
        key
        for key in keys
        if short_name(key) not in layers and key not in inner and not any(part in key for part in _EXPERTS)
    ]
