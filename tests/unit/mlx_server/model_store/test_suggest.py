"""The table of suggested models, and the choice for a machine."""

from __future__ import annotations

from dataclasses import fields

import pytest

from mlx_server.memory_forecast.fit import GIB, fit
from mlx_server.memory_forecast.forecast import forecast
from mlx_server.model_store.forecasts import METAL, METAL_STEP_TOKENS
from mlx_server.model_store.sources.by_name import source_of
from mlx_server.model_store.suggest import TASKS, Suggestion, choose, suggestions
from tests.unit.mlx_server.published_models import CONFIGS, headers
from vestal.config import load

PUBLISHED = {
    "llama3.3:70b": "Llama-3.1-70B",
    "llama3.2:1b": "Llama-3.2-1B",
    "qwen3:4b": "Qwen3-4B",
    "qwen3:8b": "Qwen3-8B",
    "qwen2.5-coder:7b": "Qwen2.5-7B",
}
"""Rows of the table with the architecture of a published model whose headers the tests have."""


@pytest.mark.parametrize("row", suggestions(), ids=lambda row: row.name)
def test_every_suggested_model_has_all_fields_and_a_size_that_follows_from_parameters_and_bits(
    row: Suggestion,
):
    for field in fields(Suggestion):
        assert getattr(row, field.name), field.name
    assert row.task in TASKS
    bits = {"Q4": 4.5, "BF16": 16, "F32": 32}[row.quantization]
    expected = row.parameters * bits / 8
    if row.task == "vision":  # the tower of images keeps 16 bits
        assert expected < row.weights_bytes < 2 * expected
    else:
        assert row.weights_bytes == pytest.approx(expected, rel=0.005)


@pytest.mark.parametrize("row", suggestions(), ids=lambda row: row.name)
def test_name_of_every_suggested_model_resolves_to_its_source(row: Suggestion, tmp_path):
    found = source_of(load({"VESTAL_HOME": str(tmp_path)}, tmp_path), row.name)
    assert found is not None
    assert found.source == row.source


@pytest.mark.parametrize("name", PUBLISHED)
def test_memory_forecast_of_a_suggested_model_equals_the_forecast_from_its_published_files(name: str):
    """`vestal models suggest` must not promise what the engine then refuses."""
    (row,) = (row for row in suggestions() if row.name == name)
    config = CONFIGS[PUBLISHED[name]] | {"quantization": {"bits": 4, "group_size": 64}}
    of_files = forecast(
        config,
        headers(CONFIGS[PUBLISHED[name]], bits=4),
        METAL,
        step_tokens=METAL_STEP_TOKENS,
        context_tokens=row.context_tokens,
    )
    for context_tokens in (None, 8192, row.context_tokens):
        of_row = fit(row.forecast(METAL), 0, context_tokens).needed_bytes
        assert of_row == pytest.approx(fit(of_files, 0, context_tokens).needed_bytes, rel=0.005)


def test_suggested_model_fits_memory_and_no_better_one_for_its_task_does():
    for limit_gib in (4, 8, 16, 24, 48, 96):
        for choice in choose(limit_gib * GIB, METAL):
            if choice.suggestion is None or choice.fit is None:
                continue
            assert choice.fit.fits
            assert choice.longest_context_tokens > 0
            rows = [row for row in suggestions() if row.task == choice.task]
            for better in rows[: rows.index(choice.suggestion)]:
                if choice.fit.context_tokens is not None or choice.suggestion.task in ("embed", "rerank"):
                    assert not fit(better.forecast(METAL), limit_gib * GIB, 8192).fits


def test_suggested_chat_model_grows_with_the_machine_and_is_none_on_a_tiny_one():
    chosen = [choose(gib * GIB, METAL)[0].suggestion for gib in (5, 8, 16, 24, 48)]
    assert [row.name for row in chosen if row] == [
        "qwen3:4b",
        "qwen3:8b",
        "qwen3:14b",
        "qwen3:30b",
        "llama3.3:70b",
    ]
    assert choose(GIB // 20, METAL)[0].suggestion is None
