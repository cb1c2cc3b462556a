"""Decide which findings of `vestal doctor` can be repaired by a click on the status page. Pure.

Only actions that are safe at any time are offered: a recovery pass, a restart by the supervisor, an
upgrade. Such a click never deletes, downloads or kills anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Action = dict[str, str]

ENDED_BY_A_PASS = "`vestal recover --once`"
CLOSES_BREAKERS = "`vestal recover --reset`"


def action_for(finding: Mapping[str, Any], services: tuple[str, ...]) -> Action | None:
    """Return the HTTP request that repairs what `finding` reports, or None if no safe request repairs it.

    `finding` is one finding that `vestal doctor --json` prints. `services` are the names of all services of
    Vestal. If the finding's sentence says that one of them was stopped by hand, the request starts that
    service.
    """
    name, sentence, remedy = (str(finding.get(field, "")) for field in ("name", "sentence", "remedy"))
    if finding.get("level") not in ("note", "fault"):
        return None
    first_word = sentence.partition(" ")[0]
    if name == "services" and "stopped by hand" in sentence and first_word in services:
        return _post(f"Start {first_word}", f"/services/{first_word}/start")
    if name in ("services", "dies_at_start") and CLOSES_BREAKERS in remedy:
        return _post("Try again now", "/recover/reset")
    if name in ("hung", "slept") and first_word == "ollama" and finding["level"] == "fault":
        return _post("Restart Ollama", "/services/ollama/restart")
    if name == "configuration" and "is out of date" in sentence:
        return _post("Replace it", "/upgrade")
    if ENDED_BY_A_PASS in remedy or (name == "ollama_not_running" and finding["level"] == "fault"):
        return _post("Recover now", "/recover")
    return None


def _post(label: str, path: str) -> Action:
    return {"label": label, "method": "POST", "path": path}
