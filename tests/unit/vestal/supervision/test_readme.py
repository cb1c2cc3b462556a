from __future__ import annotations

import re
from pathlib import Path

REPO = Path(__file__).resolve().parents[4]
PACKAGE = REPO / "vestal" / "supervision"


def test_every_file_named_in_the_supervision_readme_exists():
    names = re.findall(r"`([\w/]+(?:\.py|/))`", (PACKAGE / "README.md").read_text())
    assert len(names) > 20
    assert not [name for name in names if not (PACKAGE / name).exists() and not (REPO / name).exists()]
