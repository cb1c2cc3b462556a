"""Compare two digests of code and settings for each process of Vestal: the digest that the running process
was started with, and the one that it would get if it were started now. Say which processes to replace, and
why. Pure.
"""

from collections.abc import Mapping

OLDER = "was started by an older version of Vestal"


def why_outdated(running: str | None, installed: str) -> str:
    """Return why a process has to be replaced, as the end of a sentence; empty if the process is up to date.

    `running` is the digest `CODE.SETTINGS` that the process was started with, or None if it was started
    without one. `installed` is the digest that a process started now would get.
    """
    if running == installed:
        return ""
    if not running:
        return OLDER
    code, _, settings = running.partition(".")
    new_code, _, new_settings = installed.partition(".")
    changed = [
        name for name, a, b in (("code", code, new_code), ("settings", settings, new_settings)) if a != b
    ]
    return f"its {' and its '.join(changed)} have changed" if changed != ["code"] else "its code has changed"


def outdated(running: Mapping[str, str | None], installed: Mapping[str, str]) -> dict[str, str]:
    """Return the parts of Vestal (`agent`, `mlx_server`, …) that are out of date: a dict from the part's name
    to the reason in words.

    `running` maps the name of each running part to the digest that it was started with. A part without a
    digest (None) is out of date. `installed` maps names to the digests that the parts would get if they were
    started now. A part that is not in `installed` is left out.
    """
    found = {
        part: why_outdated(digest, installed[part]) for part, digest in running.items() if part in installed
    }
    return {part: why for part, why in found.items() if why}
