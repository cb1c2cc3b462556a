"""What a search says about the memory of a model: it knows how many numbers of which type the model has."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mlx_server.memory_forecast.weights import Arithmetic
from mlx_server.model_store.forecasts import METAL
from mlx_server.model_store.sources.hub_search import SearchResult, _served

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


def listed(**odd: Any) -> SimpleNamespace:
    """Return one of the hub's answers to a search."""
    usual = {"id": "org/m", "tags": ["mlx"], "pipeline_tag": "feature-extraction", "downloads": 1}
    usual |= {"config": {"model_type": "bert"}, "gated": False, "safetensors": {"parameters": {"F16": 8}}}
    return SimpleNamespace(**{**usual, **odd})


@pytest.mark.parametrize(
    "odd",
    [
        {"config": ["bert"]},
        {"tags": [["mlx"]]},
        {"pipeline_tag": ["text-ranking"]},
        {"safetensors": [1]},
        {"safetensors": {"parameters": {"F16": "many"}}},
    ],
)
def test_search_leaves_out_a_repository_that_is_described_oddly(odd):
    found = list(_served([listed(**odd), listed(id="org/other")]))
    assert [each.repo for each in found] == ["org/other"]
    assert found[0].weights_bytes == 16


def test_search_leaves_out_a_language_model_that_mlx_lm_cannot_load():
    text = {"pipeline_tag": "text-generation"}
    wanted = listed(id="org/other", config={"model_type": "llama"}, **text)
    found = list(_served([listed(config={"model_type": "rwkv4"}, **text), wanted, listed(config={}, **text)]))
    assert [each.repo for each in found] == ["org/other", "org/m"]


def test_search_lists_a_repository_whose_model_type_is_a_list():
    """Such a repository once ended the search with a traceback."""
    (found,) = _served([listed(config={"model_type": ["bert"]})])
    assert (found.repo, found.kind) == ("org/m", "embed")
