#!/usr/bin/env python3
"""A stand-in for launchctl, systemctl and loginctl: it acts as the program by whose name it is called.

$STAND_IN is a folder. `calls` gets a line for each call. `loaded` lists the loaded jobs. `refuse-VERB` has
the replies to the next calls of a verb, one `EXIT_CODE TEXT` a line. If the file `no-manager` exists,
systemctl finds no service manager; if `linger` exists, lingering is enabled.
"""

import os
import sys
from pathlib import Path

FOLDER = Path(os.environ["STAND_IN"])
RECORDED = Path(__file__).resolve().parents[1] / "recorded"
NO_BUS = "Failed to connect to bus: No medium found"


def main(name: str, words: list[str]) -> int:
    with (FOLDER / "calls").open("a") as calls:
        print(name, *words, file=calls)
    return {"launchctl": launchctl, "systemctl": systemctl, "loginctl": loginctl}[name](words)


def launchctl(words: list[str]) -> int:
    verb, *rest = words
    if reply := refused(verb):
        return reply
    if verb == "bootstrap":
        return bootstrap(Path(rest[1]).stem)
    label = rest[0].rpartition("/")[2]
    if verb == "enable":
        return 0
    if label not in loaded():
        if verb == "bootout":
            return complain(3, "Boot-out failed: 3: No such process")
        return complain(113, (RECORDED / "launchctl" / "not_found.txt").read_text())
    if verb == "bootout":
        keep(loaded() - {label})
    elif verb == "print":
        recorded = "between_runs" if label.endswith("recover") else "running"
        print((RECORDED / "launchctl" / f"{recorded}.txt").read_text())
    return 0


def bootstrap(label: str) -> int:
    if label in loaded():
        return complain(5, "Bootstrap failed: 5: Input/output error")
    keep(loaded() | {label})
    return 0


def systemctl(words: list[str]) -> int:
    if (FOLDER / "no-manager").exists():
        return complain(1, NO_BUS)
    assert words[0] == "--user", words
    verb, *rest = words[1:]
    if reply := refused(verb):
        return reply
    if verb == "show":
        return show(rest[0])
    units = {word for word in rest if not word.startswith("--")}
    if verb in ("start", "restart"):
        keep(loaded() | units)
    elif verb in ("stop", "disable"):
        keep(loaded() - units)
    return 0


def show(unit: str) -> int:
    if unit == "--property=Version":
        print("Version=252")
        return 0
    recorded = "not_found" if unit not in loaded() else "timer" if unit.endswith(".timer") else "running"
    print((RECORDED / "systemctl" / f"{recorded}.txt").read_text(), end="")
    return 0


def loginctl(words: list[str]) -> int:
    switch = FOLDER / "linger"
    if words[0] == "enable-linger":
        if reply := refused("enable-linger"):
            return reply
        switch.touch()
        return 0
    print("yes" if switch.exists() else "no")
    return 0


def refused(verb: str) -> int:
    """Give the next reply from `refuse-VERB` and return its exit code; return 0 if there is none."""
    ready = FOLDER / f"refuse-{verb}"
    lines = ready.read_text().splitlines() if ready.exists() else []
    if not lines:
        return 0
    ready.write_text("\n".join(lines[1:]))
    code, _, text = lines[0].partition(" ")
    return complain(int(code), text)


def loaded() -> set[str]:
    path = FOLDER / "loaded"
    return set(path.read_text().split()) if path.exists() else set()


def keep(jobs: set[str]) -> None:
    (FOLDER / "loaded").write_text("\n".join(sorted(jobs)))


def complain(code: int, text: str) -> int:
    print(text, file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[0]).name, sys.argv[1:]))
