"""Linear layers that keep their transposed weights compute what MLX's own do, also with new weights."""

from __future__ import annotations

import pytest

mx = pytest.importorskip("mlx.core")

import mlx.nn as nn  # noqa: E402
from mlx.utils import tree_flatten  # noqa: E402
from mlx_lm.tuner.lora import LoRALinear  # noqa: E402

from mlx_server.engine.layers import transposed_weights  # noqa: E402
from mlx_server.engine.layers.transposed_weights import TransposedLinear, keep_transposed  # noqa: E402


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch):
    monkeypatch.setattr(transposed_weights, "computes_on_gpu", lambda: False)


def layer(bias: bool = False) -> nn.Linear:
    made = nn.Linear(6, 4, bias=bias)
    if bias:
        made.bias = mx.random.normal((4,))
    return made


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(6,), (1, 1, 6), (3, 5, 6)])
def test_linear_layer_with_transposed_weights_gives_the_same_numbers_as_the_linear_layer_of_mlx(bias, shape):
    own, kept = layer(bias), layer(bias)
    kept.update(own.parameters())
    keep_transposed(kept)
    assert type(kept) is TransposedLinear
    for _ in range(2):
        x = mx.random.normal(shape)
        assert mx.array_equal(kept(x), own(x)).item()


def test_linear_layer_that_gets_other_weights_uses_them():
    own, kept = layer(), layer()
    keep_transposed(kept)
    x = mx.random.normal((2, 6))
    mx.eval(kept(x))
    kept.update(own.parameters())
    assert mx.array_equal(kept(x), own(x)).item()
    kept.apply(lambda array: 2 * array)
    assert mx.array_equal(kept(x), 2 * own(x)).item()


def test_kept_transposed_weights_are_no_parameters_and_take_no_memory():
    kept = nn.Linear(2048, 2048, bias=False)
    mx.eval(kept.parameters())
    keep_transposed(kept)
    mx.eval(kept(mx.ones((1, 2048))))
    assert [name for name, _ in tree_flatten(kept.parameters())] == ["weight"]
    before = mx.get_active_memory()
    transposed = kept._kept.transposed
    mx.eval(transposed)
    assert mx.get_active_memory() - before < kept.weight.nbytes // 2


def test_layer_with_transposed_weights_accepts_an_adapter_as_the_layer_of_mlx_does():
    own, kept = layer(), layer()
    kept.update(own.parameters())
    keep_transposed(kept)
    adapted, other = LoRALinear.from_base(kept, r=2), LoRALinear.from_base(own, r=2)
    other.lora_a = adapted.lora_a
    other.lora_b = adapted.lora_b = mx.random.normal(adapted.lora_b.shape)
    x = mx.random.normal((1, 3, 6))
    assert mx.array_equal(adapted(x), other(x)).item()


def test_quantized_layers_and_layers_on_a_gpu_are_not_replaced(monkeypatch):
    quantized, plain = nn.QuantizedLinear(64, 64), layer()
    keep_transposed(quantized)
    monkeypatch.setattr(transposed_weights, "computes_on_gpu", lambda: True)
    keep_transposed(plain)
    assert type(quantized) is nn.QuantizedLinear and type(plain) is nn.Linear
