"""What a search says about the memory of a model: it knows how many numbers of which type the model has."""

from __future__ import annotations

from typing import Any

import pytest

from mlx_server.memory_forecast.weights import Arithmetic
from mlx_server.model_store.forecasts import METAL
from mlx_server.model_store.sources.hub_search import SearchResult

CPU = Arithmetic(dense_float32=True, fused_attention=False)


def result(repo: str, **parameters: int) -> SearchResult:
    more: dict[str, Any] = {"kind": "generate", "downloads": 0, "gated": False, "license": ""}
    return SearchResult(repo=repo, parameters=parameters, **more)


@pytest.mark.parametrize(
    ("found", "on_metal", "on_cpu"),
    [
        (result("org/m-4bit", U32=1000, BF16=250), 4500, 4 * 8000),
        (result("org/m-8bit", U32=1000, BF16=250), 4500, 4 * 4000),
        (result("org/m-bf16", BF16=1000), 2000, 4000),
        (result("org/m", F32=1000), 4000, 4000),
        (result("org/unknown"), 0, 0),
    ],
)
def test_loaded_size_of_a_hub_model_is_its_file_size_on_metal_and_float32_size_on_a_cpu(
    found, on_metal, on_cpu
):
    assert found.loaded_bytes(METAL) == found.weights_bytes == on_metal
    assert found.loaded_bytes(CPU) == on_cpu
