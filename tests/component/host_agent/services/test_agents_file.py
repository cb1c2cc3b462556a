"""The check of the agents' file, by the orchestrator's own rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from host_agent.services.orchestrator.agents_file import AgentsFileCheck, find_mistake
from vestal.config import Config, load


def config(home: Path, text: str | None, **env: str) -> Config:
    file = home / "agents.yaml"
    if text is not None:
        file.write_text(text)
    return load({"VESTAL_HOME": str(home), "VESTAL_ORCHESTRATOR__AGENTS": str(file), **env})


GOOD = "agents:\n  reader:\n    prompt: Read.\n"


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        (GOOD, ""),
        ("agents:\n  reader: {prompt: Read\n", ":3: this is not YAML"),
        ("agents:\n  reader: Read.\n", ":2: agents.reader must be a mapping"),
        ("agents: [reader]\n", ":1: there must be a mapping"),
        (None, "cannot be read"),
    ],
)
def test_mistake_in_the_agents_file_is_reported_with_its_line(home: Path, text: str | None, mistake: str):
    found = find_mistake(config(home, text))
    assert (mistake in found) and (bool(found) == bool(mistake)), found


def test_agents_file_is_not_checked_if_the_orchestrator_is_off(home: Path):
    assert find_mistake(config(home, "agents: 7\n", VESTAL_ORCHESTRATOR__MODE="off")) == ""


async def test_agents_file_that_has_changed_is_checked_again(home: Path):
    settings = config(home, "agents: 7\n")
    check = AgentsFileCheck(settings)
    assert "agents.yaml:1" in await check.find_mistake()
    config(home, GOOD)
    assert await check.find_mistake() == ""
    (home / "agents.yaml").unlink()
    assert "cannot be read" in await check.find_mistake()
