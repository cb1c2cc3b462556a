"""The chat template is read from each of the places where a model's files may hold it."""

from __future__ import annotations

import json

import pytest

from mlx_server.model_store.files.model_folder import chat_template


@pytest.mark.parametrize(
    ("configured", "text"),
    [
        ("{{ messages }}", "{{ messages }}"),
        ([{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}], "d"),
        (None, ""),
        (7, ""),
    ],
)
def test_chat_template_in_tokenizer_configuration_is_returned(tmp_path, configured, text):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": configured}))
    assert chat_template(tmp_path) == text


def test_chat_template_in_its_own_file_takes_precedence(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "old"}')
    (tmp_path / "chat_template.jinja").write_text("new")
    assert chat_template(tmp_path) == "new"


@pytest.mark.parametrize("content", ["", "[]", "{broken"])
def test_chat_template_when_configuration_is_damaged_is_empty(tmp_path, content):
    (tmp_path / "tokenizer_config.json").write_text(content)
    assert chat_template(tmp_path) == ""
