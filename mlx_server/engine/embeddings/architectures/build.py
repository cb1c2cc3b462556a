"""Load the encoder of an embedder or reranker from its model folder.

`build_encoder(folder)` returns the encoder's module, and the remaining weights (the heads of rerankers and
the projections of embedders) under their names in the files.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten
from mlx_lm.utils import dequantize_model, infer_quant_config

from mlx_server.engine.device import computes_on_gpu
from mlx_server.model_store.files import weight_files
from mlx_server.model_store.files.model_kind import ENCODERS


def build_encoder(folder: Path) -> tuple[nn.Module, dict[str, mx.array]]:
    """Return the encoder in `folder`, and the weights in its files that do not belong to the encoder.

    The encoder is called with token ids (batch, length), a mask, and optionally token types. It returns
    hidden states (batch, length, hidden); the states of padding are undefined. Each text begins at the first
    column. The mask is 1 or True for the tokens of texts and 0 or False for the padding behind them; None if
    there is no padding. Token types tell the two texts of a pair apart; by default, all are 0.

    Weights are read from the disk when they are evaluated. On a CPU, they become float32 and dense. Raises
    OSError, ValueError, KeyError or UnreadableModel if the folder does not hold a supported model.
    """
    config = weight_files.read_config(folder)
    model_type = str(config.get("model_type"))
    if model_type not in ENCODERS:
        raise ValueError(f"its architecture {model_type} is not supported for embeddings")
    architecture = importlib.import_module(f"{__package__}.{ENCODERS[model_type]}")
    model: nn.Module = architecture.create(config)
    weights = architecture.rename(read_weights(weight_files.weight_files(folder)))
    nn.quantize(model, class_predicate=lambda path, module: _quantization(path, module, weights))
    wanted = {name for name, _ in tree_flatten(model.parameters())}
    model.load_weights([(name, weight) for name, weight in weights.items() if name in wanted])
    if not computes_on_gpu():
        model = dequantize_model(model)
        model.set_dtype(mx.float32)
    model.eval()
    return model, {name: weight for name, weight in weights.items() if name not in wanted}


def read_weights(files: list[Path]) -> dict[str, mx.array]:
    """Return the tensors of the safetensors `files` by name. Their data is read when a tensor is
    evaluated.
    """
    weights: dict[str, mx.array] = {}
    for path in files:
        weights.update(mx.load(str(path)))  # type: ignore[arg-type]
    return weights


def _quantization(path: str, module: nn.Module, weights: Mapping[str, mx.array]) -> dict[str, Any] | bool:
    """Return the quantization parameters for the weights of `module`, whose name is `path`; False if they are
    not quantized.
    """
    if not hasattr(module, "to_quantized") or f"{path}.scales" not in weights:
        return False
    return infer_quant_config(path, module, dict(weights))


def dense_weight(path: str, shape: tuple[int, int], weights: Mapping[str, mx.array]) -> mx.array:
    """Return the weight (outputs, inputs) of the linear layer `path`, dequantized if necessary.

    Raises KeyError if `weights` lacks this layer, and ValueError if the weight's shape is not `shape`.
    """
    weight = weights[f"{path}.weight"]
    if (scales := weights.get(f"{path}.scales")) is not None:
        how = infer_quant_config(path, nn.Linear(shape[1], shape[0], bias=False), dict(weights))
        weight = mx.dequantize(weight, scales, weights.get(f"{path}.biases"), **how)
    if weight.shape != shape:
        raise ValueError(f"the weights {path} have the shape {weight.shape}, not {shape}")
    return weight
