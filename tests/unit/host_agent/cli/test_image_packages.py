"""`vestal up` installs the packages for images only if a model needs them, and continues if that fails."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path

import pytest

from host_agent.cli.run.image_packages import install_if_needed, missing_or_outdated
from host_agent.cli.run.progress import Progress
from host_agent.doctor.installation.missing_dependency import assess_images
from tests.unit.mlx_server.model_store.catalog.test_catalog import write_model
from vestal.config import Config, load


def config_with(tmp_path: Path, **config: object) -> Config:
    """Return a configuration with one model, whose config.json has these fields."""
    tensors = {"w.weight": ("F16", [10, 100], 2000), "visual.p.weight": ("F16", [10, 10], 200)}
    folder = write_model(tmp_path / "own" / "eyes", tensors, **config)
    (folder / "preprocessor_config.json").write_text("{}")
    return load(
        {"VESTAL_HOME": str(tmp_path / "home"), "VESTAL_MLX__MODELS_FOLDER": str(tmp_path / "own")}, tmp_path
    )


class Installer:
    """Records the commands; `succeeds` is the result of each."""

    def __init__(self, succeeds: bool = True) -> None:
        self.succeeds = succeeds
        self.commands: list[Sequence[str]] = []

    def __call__(self, command: Sequence[str]) -> bool:
        self.commands.append(command)
        return self.succeeds


SEES = {"model_type": "qwen2_vl", "vision_config": {}}


def test_image_packages_are_installed_once_for_a_model_that_reads_images(tmp_path, capsys):
    config, installer = config_with(tmp_path, **SEES), Installer()
    install_if_needed(config, Progress(), lambda: ("mlx-vlm", "Pillow"), installer)
    (command,) = installer.commands
    assert command[-2].endswith("deploy/bootstrap.sh") and command[-1] == "vision"
    assert "eyes:latest reads images: installing mlx-vlm, Pillow" in capsys.readouterr().out
    install_if_needed(config, Progress(), tuple, installer)
    assert len(installer.commands) == 1 and not capsys.readouterr().out


@pytest.mark.parametrize(
    "config", [{"model_type": "llama"}, {"model_type": "brand_new_vl", "vision_config": {}}]
)
def test_image_packages_are_not_installed_if_no_model_reads_images(tmp_path, capsys, config):
    installer = Installer()
    install_if_needed(config_with(tmp_path, **config), Progress(), lambda: ("mlx-vlm",), installer)
    assert not installer.commands and not capsys.readouterr().out


def test_start_continues_with_text_only_if_the_packages_for_image_input_cannot_be_installed(tmp_path, capsys):
    install_if_needed(
        config_with(tmp_path, **SEES), Progress(), lambda: ("mlx-vlm",), Installer(succeeds=False)
    )
    assert "could not be installed (see above); going on with text only" in capsys.readouterr().out


def test_python_package_for_image_input_that_is_missing_or_not_of_the_locked_version_is_reported(tmp_path):
    lock = tmp_path / "vision.lock"
    installed = importlib.metadata.version("pydantic")
    lock.write_text(
        f"pydantic=={installed} \\\n    --hash=sha256:00\npyyaml==0.1 ; python_version < '4'\nno-such==1"
    )
    assert missing_or_outdated(lock) == ("pyyaml", "no-such")
    lock.write_text(f"pydantic==0.1 ; sys_platform == 'x'\npydantic=={installed} ; sys_platform != 'x'\n")
    assert missing_or_outdated(lock) == ()


def test_doctor_names_missing_image_packages_and_the_remedy_only_if_a_model_needs_them():
    (found,) = assess_images(["eyes:latest"], ["mlx-vlm", "Pillow"])
    assert found.level == "fault" and "eyes:latest can read images, and mlx-vlm, Pillow" in found.sentence
    assert "vestal up" in found.remedy
    assert not list(assess_images([], ["mlx-vlm"])) and not list(assess_images(["eyes:latest"], []))
