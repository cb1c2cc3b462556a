"""Products computed in parts equal whole ones, and only layers that profit are changed."""

from __future__ import annotations

from typing import Any

import pytest

mx = pytest.importorskip("mlx.core")

import mlx.nn as nn  # noqa: E402

from mlx_server import blas  # noqa: E402
from mlx_server.engine.models import products_in_parts  # noqa: E402
from mlx_server.engine.models.products_in_parts import PART_ROWS, multiply_in_parts, product  # noqa: E402


class Layers(nn.Module):
    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.words = nn.Embedding(outputs, 32)
        self.up = nn.Linear(32, outputs)
        self.small = nn.Linear(32, 64)
        self.quantized = nn.QuantizedLinear(32, outputs, group_size=32)


@pytest.fixture
def on_cpu_with(monkeypatch) -> Any:
    """Return a function that sets the processor that OpenBLAS reports, on a machine without Metal."""
    monkeypatch.setattr(products_in_parts, "computes_on_gpu", lambda: False)
    return lambda core: monkeypatch.setattr(blas, "_core_name", lambda library: core)


@pytest.mark.parametrize("outputs", [2 * PART_ROWS, 3 * PART_ROWS + 1, 4 * PART_ROWS + 100])
@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (2, 4), (8, 1), (1, 9), (3, 7), (1,), (5,)])
def test_matrix_product_in_parts_equals_the_whole_product(outputs, shape):
    x, weight = mx.random.normal((*shape, 32)), mx.random.normal((outputs, 32))
    in_parts = product(x, weight)
    assert in_parts.shape == (*shape, outputs)
    assert mx.allclose(in_parts, x @ weight.T, atol=1e-4).item()


@pytest.mark.parametrize("bias", [True, False])
def test_layers_whose_products_are_split_give_the_same_results(on_cpu_with, bias):
    on_cpu_with("SkylakeX")
    model = Layers(1000)
    if not bias:
        del model.up["bias"]
    x = mx.random.normal((1, 2, 32))
    before = model.up(x), model.words.as_linear(x), model.small(x), model.words(mx.array([3]))
    multiply_in_parts(model)
    assert type(model.up) is products_in_parts.LinearInParts
    assert type(model.words) is products_in_parts.EmbeddingInParts
    assert type(model.small) is nn.Linear
    assert type(model.quantized) is nn.QuantizedLinear
    after = model.up(x), model.words.as_linear(x), model.small(x), model.words(mx.array([3]))
    assert all(mx.allclose(a, b, atol=1e-4).item() for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("core", ["Haswell", "Zen", ""])
def test_products_of_layers_are_not_split_where_openblas_has_no_small_matrix_kernels(on_cpu_with, core):
    on_cpu_with(core)
    model = Layers(1000)
    multiply_in_parts(model)
    assert type(model.up) is nn.Linear


def test_products_of_layers_are_not_split_on_a_gpu(on_cpu_with, monkeypatch):
    on_cpu_with("SkylakeX")
    monkeypatch.setattr(products_in_parts, "computes_on_gpu", lambda: True)
    model = Layers(1000)
    multiply_in_parts(model)
    assert type(model.up) is nn.Linear
