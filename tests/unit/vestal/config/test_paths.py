"""Where the home and the configuration file are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from vestal.config import Home, load, paths


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that counts as the checkout that this program runs from."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "pyproject.toml").touch()
    monkeypatch.setattr(paths, "SOURCES", folder)
    return folder


def test_home_has_one_label_however_its_path_is_spelled(tmp_path: Path):
    """`/a/b/../x` and `/a/x` once had jobs and containers of different names."""
    spellings = (f"{tmp_path}/b/../x", f"{tmp_path}/x/", f"{tmp_path}/./x", "x", "b/../x", "~/x")
    env = {"HOME": str(tmp_path)}
    homes = {Home.find({**env, "VESTAL_HOME": spelling}, tmp_path) for spelling in spellings}
    assert len({home.label for home in homes}) == len(homes) == 1
    user = {"HOME": f"{tmp_path}/b/.."}
    assert Home.find({**user, "VESTAL_HOME": "~/.vestal"}, tmp_path).is_default
    assert Home.find(user, tmp_path).label == "vestal"


def test_configuration_file_in_the_checkout_is_used_only_if_working_folder_and_home_have_none(
    tmp_path: Path, checkout: Path
):
    """`vestal`, called by its path from another folder, once went on with the defaults."""
    work, home = tmp_path / "work", tmp_path / "home"
    env = {"HOME": str(tmp_path), "VESTAL_HOME": str(home)}
    assert load(env, work).file is None
    for folder in (checkout, home, work):
        folder.mkdir(exist_ok=True)
        (folder / "vestal.yaml").touch()
        assert load(env, work).file == folder / "vestal.yaml"


def test_configuration_file_beside_the_packages_of_an_installed_program_is_ignored(
    tmp_path: Path, checkout: Path
):
    (checkout / "vestal.yaml").touch()
    (checkout / "pyproject.toml").unlink()
    assert load({"HOME": str(tmp_path)}, tmp_path).file is None
