"""Where the orchestrator runs, decided from what the Docker engine can do."""

from __future__ import annotations

from pathlib import Path

import pytest

from host_agent.errors import DockerUnavailable
from host_agent.services.orchestrator import mode
from host_agent.services.orchestrator.mode import Mode
from vestal.config import load


class Engine:
    """Stands for DockerApi."""

    def __init__(self, answers: bool = True, built: bool = True) -> None:
        self.answers, self.built = answers, built

    async def version(self) -> str:
        if not self.answers:
            raise DockerUnavailable("No Docker engine was found on this machine.")
        return "20.10"

    async def has_image(self, name: str) -> bool:
        return self.built


class Plugin:
    """Stands for Compose."""

    image = "vestal-orchestrator:local"

    def __init__(self, present: bool = True) -> None:
        self.present = present

    def has_plugin(self) -> bool:
        return self.present


def _config(home: Path, wanted: str = "auto"):
    config = load(env={"VESTAL_HOME": str(home), "VESTAL_ORCHESTRATOR__MODE": wanted}, cwd=home)
    config.home.prepare()
    return config


@pytest.mark.parametrize(
    ("engine", "plugin", "expected", "why"),
    [
        (Engine(), Plugin(), Mode.DOCKER, "engine 20.10 answers"),
        (Engine(answers=False), Plugin(), Mode.NATIVE, "No Docker engine"),
        (Engine(), Plugin(present=False), Mode.NATIVE, "`docker compose` is missing"),
        (Engine(built=False), Plugin(), Mode.NATIVE, "image is not built"),
    ],
)
async def test_auto_takes_containers_only_where_all_of_it_is_there(home, engine, plugin, expected, why):
    decision = await mode.decide(_config(home), engine, plugin)
    assert decision.mode is expected
    assert why in decision.why


async def test_auto_with_containers_made_before_stays_with_them(home):
    config = _config(home)
    mode.remember_containers(config)
    decision = await mode.decide(config, Engine(answers=False), Plugin())
    assert decision.mode is Mode.DOCKER, "their volume holds the tasks"


@pytest.mark.parametrize("wanted", ["native", "docker", "off"])
async def test_configured_mode_is_taken_at_its_word(home, wanted: str):
    decision = await mode.decide(_config(home, wanted), Engine(answers=False), Plugin())
    assert decision.mode == wanted


async def test_image_is_worth_building_where_containers_are_possible(home):
    decision = await mode.possible_mode(_config(home), Engine(built=False), Plugin())
    assert decision.mode is Mode.DOCKER
