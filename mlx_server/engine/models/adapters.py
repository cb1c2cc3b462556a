"""Add a LoRA or DoRA adapter to a model in memory, without copying or changing the model's weights."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten
from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear
from mlx_lm.tuner.dora import DoRAEmbedding, DoRALinear
from mlx_lm.tuner.lora import LoRAEmbedding, LoRALinear, LoRASwitchLinear

from mlx_server.model_store.adapters import Adapter
from mlx_server.model_store.adapters.adapter import layers_of
from mlx_server.model_store.adapters.tensors import AdapterTensor, short_name

_LINEAR, _SWITCH = (nn.Linear, nn.QuantizedLinear), (SwitchLinear, QuantizedSwitchLinear)
_EMBEDDING = (nn.Embedding, nn.QuantizedEmbedding)


def add_adapter(model: nn.Module, adapter: Adapter, *, in_float32: bool) -> list[mx.array]:
    """Add `adapter` to the layers of `model`, and return the adapter's arrays, which are read from the disk
    when they are evaluated.

    The adapted layers of `model` are replaced by mlx-lm's layers, which refer to the weights of the replaced
    ones. With `in_float32`, the adapter is converted to float32. Raises ValueError if a layer is missing,
    cannot be adapted, or has another shape.
    """
    stored: dict[str, mx.array] = mx.load(str(adapter.weights_file))  # type: ignore[assignment]
    modules = dict(model.named_modules())
    by_short_name = {short_name(name): name for name in modules}
    adapted: list[tuple[str, nn.Module]] = []
    arrays: list[mx.array] = []
    for layer, parts in layers_of(adapter.settings, stored).items():
        name = layer if layer in modules else by_short_name.get(short_name(layer), "")
        if name not in modules or not name:
            raise ValueError(f"{adapter.weights_file}: the model has no layer {layer}")
        new = _adapted_layer(layer, modules[name], adapter)
        for part, tensor in parts.items():
            array = _as_needed(stored[tensor.name], tensor, in_float32)
            if (needed := getattr(new, part).shape) != array.shape:
                raise ValueError(
                    f"{adapter.weights_file}: {layer}.{part} has the shape {list(array.shape)}, "
                    f"and the model needs {list(needed)}"
                )
            setattr(new, part, array)
            arrays.append(array)
        adapted.append((name, new))
    model.update_modules(tree_unflatten(adapted))
    model.eval()
    return arrays


def _as_needed(array: mx.array, tensor: AdapterTensor, in_float32: bool) -> mx.array:
    if tensor.transposed:
        array = mx.contiguous(array.T)
    return array.astype(mx.float32) if in_float32 else array


def _adapted_layer(name: str, layer: Any, adapter: Adapter) -> Any:
    """Return mlx-lm's layer that applies `adapter` to `layer`. Raises ValueError if mlx-lm has no
    such layer.
    """
    own = adapter.settings
    arguments = {"r": own.rank, "scale": own.scale, "dropout": 0.0}
    dora = own.method == "dora"
    if isinstance(layer, nn.QuantizedLinear) and dora:
        return _dora_of_quantized(layer, own.rank, own.scale)
    if hasattr(layer, "to_lora") and not dora:
        return layer.to_lora(**arguments)
    if isinstance(layer, _LINEAR):
        return (DoRALinear if dora else LoRALinear).from_base(layer, **arguments)
    if isinstance(layer, _SWITCH) and not dora:
        return LoRASwitchLinear.from_base(layer, **arguments)
    if isinstance(layer, nn.Embedding) or (isinstance(layer, _EMBEDDING) and not dora):
        return (DoRAEmbedding if dora else LoRAEmbedding).from_base(layer, **arguments)
    raise ValueError(f"{own.method} cannot be applied to {name}, which is a {type(layer).__name__}")


def _dora_of_quantized(layer: nn.QuantizedLinear, rank: int, scale: float) -> DoRALinear:
    """Return the DoRA layer for a quantized layer. mlx-lm's `from_base` is not used, because it miscounts the
    inputs of layers with 3, 5 or 6 bits.
    """
    outputs, packed = layer.weight.shape
    new = DoRALinear(packed * 32 // layer.bits, outputs, r=rank, scale=scale)
    new.set_linear(layer)
    return new
