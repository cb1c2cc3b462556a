"""A chat template is found wherever a model's files keep it."""

from __future__ import annotations

import json

import pytest

from mlx_server.model_store.files.model_folder import chat_template


@pytest.mark.parametrize(
    ("told", "text"),
    [
        ("{{ messages }}", "{{ messages }}"),
        ([{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}], "d"),
        (None, ""),
        (7, ""),
    ],
)
def test_template_in_the_tokenizers_configuration_is_read(tmp_path, told, text):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": told}))
    assert chat_template(tmp_path) == text


def test_template_in_a_file_of_its_own_comes_first(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "old"}')
    (tmp_path / "chat_template.jinja").write_text("new")
    assert chat_template(tmp_path) == "new"


@pytest.mark.parametrize("content", ["", "[]", "{broken"])
def test_template_that_cannot_be_read_is_none(tmp_path, content):
    (tmp_path / "tokenizer_config.json").write_text(content)
    assert chat_template(tmp_path) == ""
