"""Map each tensor of a GGUF file to its place in mlx-lm's model, for the model families that can be
converted. Pure.

A family's tables name every tensor that its models have, with its shape in letters (see `Sizes`). A file is
refused if it lacks one of these tensors, has an unknown one, or has one of another shape.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mlx_server.model_store.gguf.reader import Tensor, UnsupportedGguf

Sizes = Mapping[str, int]
"""The lengths of dimensions by letter: `h` hidden size, `q` all query heads, `k` all key heads, `d` one head,
`f` feed-forward, `v` vocabulary, `e` number of experts, `m` an expert's feed-forward; `a` = `q` + 2 `k`, `g`
= 2 `f`.
"""
Table = Mapping[str, tuple[str, str]]


@dataclass(frozen=True)
class Family:
    """One model family. `layer` and `top` map the name of each tensor, in a layer or outside of the layers,
    to mlx-lm's name and the shape.

    `interleaved`: llama.cpp has reordered the rows of queries and keys for its rotary embedding.
    `norm_offset`: the norms' weights are 1 larger than in the original model. `wide_range`: activations
    exceed the range of float16, so bfloat16 is used. `tied`: the output matrix is always the embedding
    matrix.
    """

    model_type: str
    layer: Table
    top: Table
    interleaved: bool = False
    norm_offset: bool = False
    wide_range: bool = False
    tied: bool = False


_ATTENTION: Table = {
    "attn_q.weight": ("self_attn.q_proj.weight", "qh"),
    "attn_k.weight": ("self_attn.k_proj.weight", "kh"),
    "attn_v.weight": ("self_attn.v_proj.weight", "kh"),
    "attn_output.weight": ("self_attn.o_proj.weight", "hq"),
    "attn_norm.weight": ("input_layernorm.weight", "h"),
}
_HEAD_NORMS: Table = {
    "attn_q_norm.weight": ("self_attn.q_norm.weight", "d"),
    "attn_k_norm.weight": ("self_attn.k_norm.weight", "d"),
}
_QUERY_BIASES: Table = {
    "attn_q.bias": ("self_attn.q_proj.bias", "q"),
    "attn_k.bias": ("self_attn.k_proj.bias", "k"),
    "attn_v.bias": ("self_attn.v_proj.bias", "k"),
}
_FEED_FORWARD: Table = {
    "ffn_gate.weight": ("mlp.gate_proj.weight", "fh"),
    "ffn_up.weight": ("mlp.up_proj.weight", "fh"),
    "ffn_down.weight": ("mlp.down_proj.weight", "hf"),
}
_FFN_NORM: Table = {"ffn_norm.weight": ("post_attention_layernorm.weight", "h")}
_SANDWICH_NORMS: Table = {
    "post_attention_norm.weight": ("post_attention_layernorm.weight", "h"),
    "ffn_norm.weight": ("pre_feedforward_layernorm.weight", "h"),
    "post_ffw_norm.weight": ("post_feedforward_layernorm.weight", "h"),
}
_EXPERTS: Table = {
    "ffn_gate_inp.weight": ("mlp.gate.weight", "eh"),
    "ffn_gate_exps.weight": ("mlp.switch_mlp.gate_proj.weight", "emh"),
    "ffn_up_exps.weight": ("mlp.switch_mlp.up_proj.weight", "emh"),
    "ffn_down_exps.weight": ("mlp.switch_mlp.down_proj.weight", "ehm"),
}
_TOP: Table = {
    "token_embd.weight": ("model.embed_tokens.weight", "vh"),
    "output_norm.weight": ("model.norm.weight", "h"),
    "output.weight": ("lm_head.weight", "vh"),
}
_PHI2_LAYER: Table = {
    "attn_norm.weight": ("input_layernorm.weight", "h"),
    "attn_norm.bias": ("input_layernorm.bias", "h"),
    **_QUERY_BIASES,
    **{name: target for name, target in _ATTENTION.items() if name[:6] in ("attn_q", "attn_k", "attn_v")},
    "attn_output.weight": ("self_attn.dense.weight", "hq"),
    "attn_output.bias": ("self_attn.dense.bias", "h"),
    "ffn_up.weight": ("mlp.fc1.weight", "fh"),
    "ffn_up.bias": ("mlp.fc1.bias", "f"),
    "ffn_down.weight": ("mlp.fc2.weight", "hf"),
    "ffn_down.bias": ("mlp.fc2.bias", "h"),
}
_PHI2_TOP: Table = {
    "token_embd.weight": ("model.embed_tokens.weight", "vh"),
    "output_norm.weight": ("model.final_layernorm.weight", "h"),
    "output_norm.bias": ("model.final_layernorm.bias", "h"),
    "output.weight": ("lm_head.weight", "vh"),
    "output.bias": ("lm_head.bias", "v"),
}
_PHI3_LAYER: Table = {
    "attn_qkv.weight": ("self_attn.qkv_proj.weight", "ah"),
    "attn_output.weight": ("self_attn.o_proj.weight", "hq"),
    "attn_norm.weight": ("input_layernorm.weight", "h"),
    "ffn_up.weight": ("mlp.gate_up_proj.weight", "gh"),
    "ffn_down.weight": ("mlp.down_proj.weight", "hf"),
    **_FFN_NORM,
}
_GEMMA3_LAYER: Table = {**_ATTENTION, **_HEAD_NORMS, **_FEED_FORWARD, **_SANDWICH_NORMS}

FAMILIES: Mapping[str, Family] = {
    "llama": Family("llama", {**_ATTENTION, **_FEED_FORWARD, **_FFN_NORM}, _TOP, interleaved=True),
    "qwen2": Family(
        "qwen2",
        {**_ATTENTION, **_QUERY_BIASES, **_FEED_FORWARD, **_FFN_NORM},
        _TOP,
        wide_range=True,
    ),
    "qwen3": Family(
        "qwen3", {**_ATTENTION, **_HEAD_NORMS, **_FEED_FORWARD, **_FFN_NORM}, _TOP, wide_range=True
    ),
    "qwen3moe": Family(
        "qwen3_moe", {**_ATTENTION, **_HEAD_NORMS, **_EXPERTS, **_FFN_NORM}, _TOP, wide_range=True
    ),
    "gemma": Family(
        "gemma",
        {**_ATTENTION, **_FEED_FORWARD, **_FFN_NORM},
        _TOP,
        norm_offset=True,
        wide_range=True,
        tied=True,
    ),
    "gemma2": Family(
        "gemma2",
        {**_ATTENTION, **_FEED_FORWARD, **_SANDWICH_NORMS},
        _TOP,
        norm_offset=True,
        wide_range=True,
        tied=True,
    ),
    "gemma3": Family("gemma3_text", _GEMMA3_LAYER, _TOP, norm_offset=True, wide_range=True),
    "phi2": Family("phi", _PHI2_LAYER, _PHI2_TOP),
    "phi3": Family("phi3", _PHI3_LAYER, _TOP, wide_range=True),
}
"""Maps llama.cpp's name for an architecture to its family."""

_LAYER_NAME = re.compile(r"blk\.(\d{1,4})\.(.+)")
_IGNORED = re.compile(
    r"rope_freqs\.weight|rope_factors_(?:long|short)\.weight|blk\.\d+\.attn_rot_embd(?:\.weight)?"
)
_VISION = re.compile(r"(?:v|mm)\..+")


def family_of(architecture: object) -> Family:
    """Return the family of an architecture. Raises UnsupportedGguf, which names the architecture, if it is
    not converted.
    """
    family = FAMILIES.get(architecture) if isinstance(architecture, str) else None
    if family is None:
        shown = (
            f"its architecture is {str(architecture)[:40]!r}" if architecture else "it names no architecture"
        )
        raise UnsupportedGguf(f"{shown}; Vestal converts {', '.join(FAMILIES)}")
    return family


@dataclass(frozen=True)
class Placed:
    """A tensor of the file, and its name in mlx-lm's model (`target`)."""

    tensor: Tensor
    target: str


def place_tensors(
    architecture: str, tensors: Iterable[Tensor], sizes: Sizes, layers: int
) -> tuple[list[Placed], list[str]]:
    """Return the tensors with their names in mlx-lm, in the order of the file, and the names of the tensors
    that are left out because they belong to an image encoder.

    `sizes` are the lengths of the model's dimensions, such as its hidden size, from which the right shape of
    each tensor follows. `layers` is the model's number of layers. Raises UnsupportedGguf if a tensor is
    missing, unknown or of a wrong shape.
    """
    family = family_of(architecture)
    placed: list[Placed] = []
    images: list[str] = []
    for tensor in tensors:
        match = _LAYER_NAME.fullmatch(tensor.name)
        entry = family.layer.get(match[2]) if match else family.top.get(tensor.name)
        if match and entry is not None and int(match[1]) < layers:
            prefix = f"model.layers.{int(match[1])}."
        elif entry is not None and not match:
            prefix = ""
        elif _VISION.fullmatch(tensor.name):
            images.append(tensor.name)
            continue
        elif _IGNORED.fullmatch(tensor.name):
            continue
        else:
            raise UnsupportedGguf(
                f"it has a tensor {tensor.name[:60]!r}, which is not part of a {architecture} model"
            )
        if family.tied and tensor.name == "output.weight":
            continue
        shape = tuple(sizes[letter] for letter in entry[1])
        if tensor.shape != shape:
            raise UnsupportedGguf(f"its tensor {tensor.name} has the shape {tensor.shape} instead of {shape}")
        placed.append(Placed(tensor, prefix + entry[0]))
    _check_complete(architecture, family, {each.tensor.name for each in placed}, layers)
    return placed, images


def _check_complete(architecture: str, family: Family, names: set[str], layers: int) -> None:
    """Raise UnsupportedGguf if a model of this `family` with this many `layers` needs a tensor that is not in
    `names`, the names of the file's tensors that are converted. The error names the `architecture`.

    A damaged file may claim millions of layers, so at most one layer more is checked than there are `names`.
    If the file claims that many layers, at least one of the checked layers has no tensor at all.
    """
    claimed = range(min(layers, len(names) + 1))
    needed = {f"blk.{layer}.{name}" for layer in claimed for name in family.layer}
    needed |= family.top.keys() - {"output.weight"}
    if missing := sorted(needed - names):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UnsupportedGguf(f"it lacks the tensor {missing[0]}{more} of a {architecture} model")
