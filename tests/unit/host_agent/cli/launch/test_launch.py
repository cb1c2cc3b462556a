"""Which model a program gets from `vestal launch`, and how it is pointed at the server."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest

from host_agent.cli import parser
from host_agent.cli.launch.models import EXAMPLE, InstalledModel, Needs, best, language_models, why_none_fits
from host_agent.cli.launch.programs import PROGRAMS, plan
from mlx_server.model_store.sources.by_name import library
from vestal.config import name_key

AGENT = Needs(32_768, tools=True)
SMALL = InstalledModel("small:latest", 8_192, tools=True, size_bytes=100)
PLAIN = InstalledModel("plain:latest", 131_072, tools=False, size_bytes=900)
GOOD = InstalledModel("good:8b", 40_960, tools=True, size_bytes=500)
BETTER = InstalledModel("better:30b", 131_072, tools=True, size_bytes=700)
URL = "http://127.0.0.1:11435"


def test_launch_chooses_the_largest_model_that_meets_the_needs_of_the_program():
    assert best([SMALL, PLAIN, GOOD, BETTER], AGENT) == BETTER
    assert best([SMALL, PLAIN, GOOD], AGENT) == GOOD
    assert best([SMALL, PLAIN], AGENT) is None
    assert best([SMALL, PLAIN], Needs(0, tools=False)) == PLAIN


def test_launch_prefers_a_loaded_model_to_a_larger_one_that_is_not_loaded():
    loaded = InstalledModel("good:8b", 40_960, tools=True, size_bytes=500, is_loaded=True)
    assert best([BETTER, loaded], AGENT) == loaded


def test_launch_without_a_suitable_model_explains_why_each_model_is_unsuitable_and_names_a_remedy():
    sentence = why_none_fits("Codex CLI", [SMALL, PLAIN], AGENT)
    assert "Codex CLI needs a context of 32,768 tokens or more and tools" in sentence
    assert "small:latest has a context of 8,192 tokens; plain:latest cannot call tools" in sentence
    assert f"`vestal models pull {EXAMPLE}`" in sentence and "--model" in sentence
    assert name_key(EXAMPLE) in library()
    assert "none is installed" in why_none_fits("Codex CLI", [], AGENT)


def test_launch_reads_language_models_with_context_and_tools_from_the_servers_lists():
    details = {"context_length": 8192}
    tags: dict[str, Any] = {
        "models": [
            {"name": "a:1", "size": 5, "details": details, "capabilities": ["completion", "tools"]},
            {"name": "b:1", "size": 6, "details": {}, "capabilities": ["completion"]},
            {"name": "v:1", "size": 7, "details": details, "capabilities": ["embedding"]},
        ]
    }
    assert language_models(tags, {"models": [{"name": "b:1"}]}) == [
        InstalledModel("a:1", 8192, tools=True, size_bytes=5),
        InstalledModel("b:1", 0, tools=False, size_bytes=6, is_loaded=True),
    ]


@pytest.mark.parametrize("name", PROGRAMS)
def test_launch_plan_of_every_program_names_the_server_and_contains_no_placeholder(name: str):
    planned = plan(PROGRAMS[name], GOOD, URL, ("--more", "$untouched"))
    assert planned.command[-2:] == ("--more", "$untouched")
    everything = [*planned.command[:-2], *planned.environment.values(), planned.configuration]
    assert any(URL in text for text in everything)
    assert not [text for text in everything if "$" in text]


@pytest.mark.parametrize("model", ["good:8b", 'odd"name\\:latest'])
def test_launch_plan_with_any_model_name_is_valid_json_and_toml(model: str):
    named = InstalledModel(model, 40_960, tools=True, size_bytes=1)
    opencode = plan(PROGRAMS["opencode"], named, URL)
    settings = json.loads(opencode.environment["OPENCODE_CONFIG_CONTENT"])
    assert settings["model"] == f"vestal/{model}"
    assert settings["provider"]["vestal"]["models"][model]["limit"]["context"] == 40_960
    codex = plan(PROGRAMS["codex"], named, URL)
    assert tomllib.loads(codex.configuration)["model"] == model
    overrides = [argument for argument in codex.command if "=" in argument]
    read = tomllib.loads("\n".join(overrides))
    assert read["model_providers"]["vestal"] == {
        "name": "Vestal",
        "base_url": f"{URL}/v1",
        "wire_api": "responses",
    }


def test_launch_passes_arguments_after_two_dashes_to_the_program():
    options = parser.parse(["launch", "codex", "--model", "m", "--", "exec", "--json", "hi"])
    assert (options.program, options.model, options.json) == ("codex", "m", False)
    assert options.arguments == ["exec", "--json", "hi"]
    assert parser.parse(["launch", "--json"]).arguments == []
    assert parser.parse(["models", "pull", "--", "x"]).names == ["x"]
