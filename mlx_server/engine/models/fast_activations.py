"""Compute the activation function of a model's layers (SwiGLU) on a CPU without the C library's exponential.

MLX's builds for Linux call that function for one number at a time, which takes 9 ns. A polynomial, computed
with a few simple operations, is computed for several numbers at a time, because MLX joins these operations in
one loop that it has the C compiler translate. Measured for the 1,536 numbers of a token in one layer: 8
tokens take 0.18 ms with MLX and 0.07 ms here, 512 tokens 10.9 and 2.9 ms. The activations were a tenth of a
step of eight answers, and a fifth of the time of a prompt.
"""

from __future__ import annotations

import sys
from functools import partial

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models import activations

from mlx_server.engine.device import computes_on_gpu

SWIGLU = "swiglu"
"""The name under which mlx-lm's models import the function that computes SwiGLU."""

_LEAST, _MOST = -87.0, 88.0
"""Between these, e^x is a normal float32."""
_LOG2_E = 1.44269504
_LN_2_HIGH, _LN_2_LOW = 0.693359375, -2.12194440e-4
"""Two numbers whose sum is ln 2. A multiple of the first is exact, so the rest of `x` is, too."""
_COEFFICIENTS = (
    1.9875691500e-4,
    1.3981999507e-3,
    8.3334519073e-3,
    4.1665795894e-2,
    1.6666665459e-1,
    5.0000001201e-1,
)
"""Of the polynomial for e^r, |r| <= ln(2) / 2, from the Cephes library (`expf`): (e^r - 1 - r) / r^2."""


def use_fast_activations(model: nn.Module) -> None:
    """On a CPU, make the layers of `model` compute SwiGLU by this module's `swiglu` instead of mlx-lm's
    function. The function is replaced in the Python modules that define the layers, and thus for every model
    whose layers come from these modules.

    On a GPU, nothing is replaced, because its exponential function is fast.
    """
    if computes_on_gpu():
        return
    for name in {type(layer).__module__ for layer in model.modules()}:
        if getattr(sys.modules[name], SWIGLU, None) is activations.swiglu:
            setattr(sys.modules[name], SWIGLU, swiglu)


def swiglu(gate: mx.array, x: mx.array) -> mx.array:
    """Return `gate` * sigmoid(`gate`) * `x`. The sigmoid's relative error is below 2e-7; that of MLX's is
    some 8e-7.
    """
    if gate.dtype != mx.float32 or x.dtype != mx.float32:
        out: mx.array = activations.swiglu(gate, x)
        return out
    mantissa, exponent = _exponential(-gate)
    return _product(gate, x, mantissa, exponent.view(mx.float32))


@partial(mx.compile, shapeless=True)
def _exponential(x: mx.array) -> tuple[mx.array, mx.array]:
    """Return e^x as two factors. The second one, a power of two, is returned as the bits of a float32."""
    x = mx.clip(x, _LEAST, _MOST)
    power = mx.floor(x * _LOG2_E + 0.5)
    rest = x - power * _LN_2_HIGH - power * _LN_2_LOW
    polynomial = rest * _COEFFICIENTS[0] + _COEFFICIENTS[1]
    for coefficient in _COEFFICIENTS[2:]:
        polynomial = polynomial * rest + coefficient
    return polynomial * (rest * rest) + rest + 1.0, (power.astype(mx.int32) + 127) << 23


@partial(mx.compile, shapeless=True)
def _product(gate: mx.array, x: mx.array, mantissa: mx.array, power: mx.array) -> mx.array:
    return gate / (1.0 + mantissa * power) * x
