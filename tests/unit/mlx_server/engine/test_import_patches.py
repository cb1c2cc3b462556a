"""The contents of transformers' folder of models are scanned once per installation."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mlx_server.engine.import_patches import _replace_scan

CONTENTS: dict[Any, Any] = {
    frozenset({"torch", "vision"}): {"modeling": {"A", "B"}},
    "llama": {frozenset(): {"configuration": {"C"}}, "deep": {frozenset({"x"}): {"m": set()}}},
}


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("sys.dont_write_bytecode", False)
    monkeypatch.setattr("sys.pycache_prefix", None)
    folder = tmp_path / "models"
    (folder / "__pycache__").mkdir(parents=True)
    return folder


def contents(models: Path, *asked: Path) -> tuple[list[Any], int]:
    """Return the answers of a newly imported scanner, and how many folders it scanned."""
    scanned: list[Any] = []

    def scan(path: Any) -> dict[Any, Any]:
        scanned.append(path)
        return CONTENTS

    module: Any = ModuleType("import_utils")
    module.__file__ = str(models.parent / "utils" / "import_utils.py")
    module.create_import_structure_from_path = scan
    _replace_scan(module)
    return [module.create_import_structure_from_path(path) for path in asked], len(scanned)


def test_transformers_models_folder_is_scanned_by_the_first_start_only(models: Path) -> None:
    both = (models, models / "__init__.py")
    assert contents(models, *both) == ([CONTENTS, CONTENTS], 1)
    assert contents(models, *both) == ([CONTENTS, CONTENTS], 0)
    assert contents(models, models / "auto") == ([CONTENTS], 1)


def test_transformers_models_folder_that_changed_is_scanned_again(models: Path) -> None:
    contents(models, models)
    os.utime(models, ns=(1, 1))
    assert contents(models, models)[1] == 1


@pytest.mark.parametrize("damage", ["", "[", "[[1, 2]]", "7", "null", '[["a"]]', '{"a": 1}'])
def test_transformers_models_folder_whose_stored_listing_is_damaged_is_scanned_again(
    models: Path, damage: str
) -> None:
    contents(models, models)
    (kept,) = (models / "__pycache__").iterdir()
    kept.write_text(damage)
    assert contents(models, models) == ([CONTENTS], 1)
    assert contents(models, models) == ([CONTENTS], 0)


def test_listing_of_transformers_models_is_not_written_if_python_may_write_no_bytecode(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    assert contents(models, models) == ([CONTENTS], 1)
    assert list((models / "__pycache__").iterdir()) == []
