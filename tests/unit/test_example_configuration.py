"""The example file is documentation that can be run: it loads, and what it shows are the defaults."""

from __future__ import annotations

from pathlib import Path

from vestal.config import load

EXAMPLE = Path(__file__).resolve().parents[2] / "vestal.example.yaml"


def test_example_file_when_loaded_equals_the_defaults(tmp_path: Path):
    without = load(env={"VESTAL_HOME": str(tmp_path)}, cwd=tmp_path)
    given = load(env={"VESTAL_HOME": str(tmp_path), "VESTAL_CONFIG": str(EXAMPLE)}, cwd=tmp_path)
    assert given.model_dump(exclude={"file"}) == without.model_dump(exclude={"file"})
