"""The file with the request for an upgrade, which may have been damaged."""

from __future__ import annotations

import sys

import pytest

from host_agent.upgrade import request_file
from vestal.config import load


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"python"', "[" * 200_000])
def test_upgrade_request_without_a_json_object_is_for_the_present_program(tmp_path, text: str):
    """Earlier, the upgrade failed with an AttributeError if the file had JSON of another type."""
    home = load({"VESTAL_HOME": str(tmp_path)}).home
    home.prepare()
    path = home.run / "upgrade.request"
    path.write_text(text)
    assert request_file.take(home).executable == sys.executable
    assert not path.exists()
