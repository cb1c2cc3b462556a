"""Compute the activation function of a model's layers (SwiGLU) on a CPU without the C library's exponential.

MLX's builds for Linux call that function for one number at a time. Measured with one thread, for the 1,536
numbers of a token in one layer: 512 tokens of a prompt take 11 ms with MLX and 0.8 ms here, where numpy
computes them in blocks that stay in the processor's cache; a step of 8 answers takes 0.17 and 0.06 ms. The
activations were a fifth of the time of a prompt.

In a step of answers, each row of the batch has a single token. MLX computes such steps in the background,
while a call of numpy would wait for the step before. So there, `fast_exponential` is used.
"""

from __future__ import annotations

from functools import partial

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.models.activations import swiglu as swiglu_of_mlx_lm

from mlx_server.engine.device import computes_on_gpu
from mlx_server.engine.fast_exponential import exponential_factors
from mlx_server.engine.layers.replaced_functions import replace_function

SWIGLU = "swiglu"
"""The name under which mlx-lm's models import the function that computes SwiGLU."""

FEWEST_NUMBERS = 4096
"""Fewer numbers take MLX's function no longer, because it passes over them only once."""
FEWEST_NUMBERS_OF_A_PROMPT = 1 << 14
"""With fewer numbers of a prompt, a call of numpy in each layer gains nothing."""
MOST_NUMBERS_OF_A_STEP = 1 << 18
"""More numbers are a prompt's, also where experts compute each of its tokens alone. `fast_exponential` takes
memory for six arrays of this size, which is more than the forecast of memory counts for prompts."""
_NUMBERS_IN_BLOCK = 1 << 14


def use_fast_activations(model: nn.Module) -> None:
    """On a CPU, make the layers of `model` compute SwiGLU by this module's `swiglu` instead of mlx-lm's
    function (see `replace_function`).

    On a GPU, nothing is replaced, because its exponential function is fast.
    """
    if not computes_on_gpu():
        replace_function(model, SWIGLU, swiglu_of_mlx_lm, swiglu)


def swiglu(gate: mx.array, x: mx.array) -> mx.array:
    """Return `gate` * sigmoid(`gate`) * `x`. The sigmoid's relative error is below 4e-7; that of MLX's is
    some 8e-7. Few numbers, and those that are not float32, are left to mlx-lm's function.
    """
    if gate.size < FEWEST_NUMBERS or gate.dtype != mx.float32 or x.dtype != mx.float32:
        out: mx.array = swiglu_of_mlx_lm(gate, x)
        return out
    has_several_tokens = gate.ndim > 1 and gate.shape[-2] > 1
    fewest = FEWEST_NUMBERS_OF_A_PROMPT if has_several_tokens else MOST_NUMBERS_OF_A_STEP
    if gate.size >= fewest and gate.shape == x.shape:
        return _swiglu_in_blocks(gate, x)
    mantissa, power = exponential_factors(-gate)
    return _product(gate, x, mantissa, power.view(mx.float32))


@partial(mx.compile, shapeless=True)
def _product(gate: mx.array, x: mx.array, mantissa: mx.array, power: mx.array) -> mx.array:
    return gate / (1.0 + mantissa * power) * x


@np.errstate(all="ignore")  # infinite numbers and NaN, from damaged weights, are found in the results
def _swiglu_in_blocks(gate: mx.array, x: mx.array) -> mx.array:
    """Return the same as `swiglu`, computed by numpy, one block of numbers after the other. The result is
    computed in place, in the memory of the product of `gate` and `x`, neither of which is changed.
    """
    out = mx.contiguous(gate * x)
    mx.eval(gate, out)
    gates = np.array(gate, copy=False).reshape(-1)
    products = np.array(out, copy=False).reshape(-1)  # the same memory
    block = np.empty(min(_NUMBERS_IN_BLOCK, products.size), np.float32)
    for first in range(0, products.size, block.size):
        some = products[first : first + block.size]
        divisor = block[: some.size]
        np.negative(gates[first : first + block.size], out=divisor)
        np.exp(divisor, out=divisor)
        divisor += 1.0
        some /= divisor
    return out
