"""The example file shows every setting, can be loaded, and has the defaults."""

from __future__ import annotations

import re
from pathlib import Path

from vestal.config import environment, load

EXAMPLE = Path(__file__).resolve().parents[2] / "vestal.example.yaml"


def test_example_configuration_file_equals_the_default_settings(tmp_path: Path):
    without = load(env={"VESTAL_HOME": str(tmp_path)}, cwd=tmp_path)
    given = load(env={"VESTAL_HOME": str(tmp_path), "VESTAL_CONFIG": str(EXAMPLE)}, cwd=tmp_path)
    assert given.model_dump(exclude={"file"}) == without.model_dump(exclude={"file"})


def test_example_configuration_file_shows_every_setting():
    text = EXAMPLE.read_text()
    missing = [
        key for _, key in environment.all_keys() if not re.search(rf"^ +(# )?{key}:", text, re.MULTILINE)
    ]
    assert not missing
