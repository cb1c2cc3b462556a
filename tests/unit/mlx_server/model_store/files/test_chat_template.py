"""The chat template is read from each of the places where a model's files may hold it."""

from __future__ import annotations

import json

import pytest

from mlx_server.engine.generation.prompts import infilling
from mlx_server.model_store.files.capabilities import INFILL_MARKERS, capabilities_of
from mlx_server.model_store.files.model_folder import (
    MAX_TEMPLATE_BYTES,
    chat_template,
    check_templates,
    processor_template,
)
from mlx_server.model_store.files.weight_files import UnreadableModel


@pytest.mark.parametrize(
    ("configured", "text"),
    [
        ("{{ messages }}", "{{ messages }}"),
        ([{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}], "d"),
        (None, ""),
        (7, ""),
    ],
)
def test_chat_template_is_read_from_the_tokenizer_configuration(tmp_path, configured, text):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": configured}))
    assert chat_template(tmp_path) == text


def test_chat_template_in_a_file_of_its_own_takes_precedence_over_the_configuration(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "old"}')
    (tmp_path / "chat_template.jinja").write_text("new")
    assert chat_template(tmp_path) == "new"


def test_chat_template_of_the_processor_is_read_only_if_the_tokenizer_has_none(tmp_path):
    """LLaVA and Mistral Small 3.1 have only this file, and were once served without a template."""
    (tmp_path / "chat_template.json").write_text('{"chat_template": "processor"}')
    assert chat_template(tmp_path) == processor_template(tmp_path) == "processor"
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "tokenizer"}')
    assert chat_template(tmp_path) == "tokenizer"
    (tmp_path / "chat_template.jinja").write_text("own")
    assert chat_template(tmp_path) == "own"


@pytest.mark.parametrize("content", ["", "[]", "{broken", '{"chat_template": [{"name": []}]}'])
def test_damaged_chat_template_of_the_processor_is_ignored(tmp_path, content):
    (tmp_path / "chat_template.json").write_text(content)
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "tokenizer"}')
    assert (chat_template(tmp_path), processor_template(tmp_path)) == ("tokenizer", "")


@pytest.mark.parametrize("content", ["", "[]", "{broken"])
def test_chat_template_is_empty_if_the_tokenizer_configuration_is_damaged(tmp_path, content):
    (tmp_path / "tokenizer_config.json").write_text(content)
    assert chat_template(tmp_path) == ""


@pytest.mark.parametrize(
    "name", ["chat_template.jinja", "chat_template.json", "additional_chat_templates/tools.jinja"]
)
def test_model_with_a_too_large_chat_template_is_refused_and_the_template_not_read(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("x" * MAX_TEMPLATE_BYTES)
    check_templates(tmp_path)
    path.write_text("x" * (MAX_TEMPLATE_BYTES + 1))
    with pytest.raises(UnreadableModel, match=f"{name} has 1048577 bytes"):
        check_templates(tmp_path)
    assert chat_template(tmp_path) == ""


def test_infill_markers_of_the_model_store_equal_the_infill_markers_of_the_engine():
    assert tuple(family[:2] for family in infilling._FAMILIES) == INFILL_MARKERS


@pytest.mark.parametrize(
    ("template", "fills_gaps", "capabilities"),
    [
        ("", False, ("completion",)),
        ("{{ messages }}", True, ("completion", "tools", "insert")),
        ("<think>{{ messages }}</think>", False, ("completion", "tools", "thinking")),
        ("<|start|>assistant<|channel|>analysis", False, ("completion", "tools", "thinking")),
    ],
)
def test_model_capabilities_follow_from_its_template_and_infill_tokens(template, fills_gaps, capabilities):
    assert capabilities_of(template, fills_gaps=fills_gaps) == capabilities
