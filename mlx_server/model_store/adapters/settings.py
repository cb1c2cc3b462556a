"""Read an adapter's `adapter_config.json`, in mlx-lm's form or PEFT's. Pure."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mlx_server.model_store.adapters.tensors import Form

Method = Literal["lora", "dora"]


class UnusableAdapter(Exception):
    """An adapter cannot be applied; the text says why, and often what can be done."""


@dataclass(frozen=True)
class AdapterSettings:
    """How an adapter is applied: `scale` times the adapter's low-rank product is added to a layer's output.

    `form` is the format of the adapter's files (mlx-lm's or PEFT's), and `method` LoRA or DoRA. `keys` names
    the adapted layers within a block of the model; it is empty if the adapter's configuration does not name
    them.
    """

    form: Form
    method: Method
    rank: int
    scale: float
    keys: tuple[str, ...] = ()


def read_settings(config: Mapping[str, Any]) -> AdapterSettings:
    """Return the settings in `config`, the content of an `adapter_config.json`. Raises UnusableAdapter if it
    is invalid or asks for what cannot be applied.
    """
    return _peft_settings(config) if "peft_type" in config else _mlx_settings(config)


def _mlx_settings(config: Mapping[str, Any]) -> AdapterSettings:
    method = config.get("fine_tune_type", "lora")
    if method == "full":
        raise UnusableAdapter(
            'fine_tune_type "full" holds whole weights, which cannot be shared with the base: '
            "fuse them into a model of their own (mlx_lm.fuse)"
        )
    if method not in ("lora", "dora"):
        raise UnusableAdapter(f"fine_tune_type {str(method)[:40]!r} is unknown: it must be lora or dora")
    own = config.get("lora_parameters")
    if not isinstance(own, dict):
        raise UnusableAdapter("it has no lora_parameters: give rank, scale and the trained keys")
    keys = own.get("keys") or ()
    if not isinstance(keys, (list, tuple)) or not all(isinstance(key, str) for key in keys):
        raise UnusableAdapter("lora_parameters.keys must be a list of layer names")
    rank = _rank(own.get("rank"), "lora_parameters.rank")
    return AdapterSettings(
        "mlx-lm", method, rank, _scale(own.get("scale"), "lora_parameters.scale"), tuple(keys)
    )


_UNSUPPORTED_PEFT = {
    "modules_to_save": "whole trained layers (modules_to_save)",
    "rank_pattern": "different ranks (rank_pattern)",
    "alpha_pattern": "different scales (alpha_pattern)",
    "fan_in_fan_out": "transposed layers (fan_in_fan_out)",
    "megatron_config": "layers of Megatron",
    "layer_replication": "replicated layers (layer_replication)",
    "lora_bias": "trained biases (lora_bias)",
    "trainable_token_indices": "trained tokens (trainable_token_indices)",
}


def _peft_settings(config: Mapping[str, Any]) -> AdapterSettings:
    kind = str(config["peft_type"])
    if kind.upper() != "LORA":
        raise UnusableAdapter(
            f"PEFT's {kind[:40]} is not applied here: train with LoRA, or merge it (merge_and_unload)"
        )
    found = [text for key, text in _UNSUPPORTED_PEFT.items() if config.get(key)]
    if config.get("bias", "none") != "none":
        found.append("trained biases (bias)")
    if found:
        raise UnusableAdapter(
            f"the PEFT adapter has {', '.join(found)}, which cannot be added to shared weights: "
            "merge it into its base (merge_and_unload), and serve that as a model"
        )
    rank = _rank(config.get("r"), "r")
    alpha = _scale(config.get("lora_alpha", rank), "lora_alpha")
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return AdapterSettings("peft", "dora" if config.get("use_dora") else "lora", rank, scale)


def _rank(value: Any, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UnusableAdapter(f"{name} must be a whole number from 1, and it is {str(value)[:40]}")
    return value


def _scale(value: Any, name: str) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not abs(value) <= sys.float_info.max:
        hint = "; mlx-lm calls it scale, not alpha" if name.endswith("scale") and value is None else ""
        raise UnusableAdapter(f"{name} must be a number, and it is {str(value)[:40]}{hint}")
    return float(value)
