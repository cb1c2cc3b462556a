"""The decision whether the orchestrator runs in containers, from what Docker and compose can do."""

from __future__ import annotations

from pathlib import Path

import pytest

from host_agent.errors import DockerUnavailable
from host_agent.services.orchestrator import mode
from host_agent.services.orchestrator.mode import Mode
from vestal.config import load


class FakeEngine:
    """A stand-in for DockerApi."""

    def __init__(self, answers: bool = True, built: bool = True) -> None:
        self.answers, self.built = answers, built

    async def version(self) -> str:
        if not self.answers:
            raise DockerUnavailable("No Docker engine was found on this machine.")
        return "20.10"

    async def has_image(self, name: str) -> bool:
        return self.built


class FakeCompose:
    """A stand-in for Compose."""

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
        (FakeEngine(), FakeCompose(), Mode.DOCKER, "engine 20.10 answers"),
        (FakeEngine(answers=False), FakeCompose(), Mode.NATIVE, "No Docker engine"),
        (FakeEngine(), FakeCompose(present=False), Mode.NATIVE, "`docker compose` is missing"),
        (FakeEngine(built=False), FakeCompose(), Mode.NATIVE, "image is not built"),
    ],
)
async def test_orchestrator_mode_auto_is_containers_only_with_a_docker_engine_compose_and_a_built_image(
    home, engine, plugin, expected, why
):
    decision = await mode.decide(_config(home), engine, plugin)
    assert decision.mode is expected
    assert why in decision.why


async def test_orchestrator_mode_auto_keeps_existing_containers_even_if_docker_does_not_answer(home):
    config = _config(home)
    mode.remember_containers(config)
    decision = await mode.decide(config, FakeEngine(answers=False), FakeCompose())
    assert decision.mode is Mode.DOCKER, "their volume holds the tasks"


@pytest.mark.parametrize("wanted", ["native", "docker", "off"])
async def test_configured_orchestrator_mode_is_chosen_without_asking_docker(home, wanted: str):
    decision = await mode.decide(_config(home, wanted), FakeEngine(answers=False), FakeCompose())
    assert decision.mode == wanted


async def test_orchestrator_mode_possible_before_the_image_is_built_is_docker(home):
    decision = await mode.possible_mode(_config(home), FakeEngine(built=False), FakeCompose())
    assert decision.mode is Mode.DOCKER
