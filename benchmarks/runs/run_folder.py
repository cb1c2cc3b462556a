"""Store a run in a folder of `benchmarks/results`: its figures, how each scenario ended, and the machine."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, read, to_line

RESULTS = Path(__file__).resolve().parents[1] / "results"
DONE, OUT_OF_TIME, FAILED, INTERRUPTED = "done", "out of time", "failed", "interrupted"


@dataclass(frozen=True)
class Ended:
    """How a scenario of a run ended (DONE, OUT_OF_TIME, FAILED or INTERRUPTED), and how many seconds
    it took.
    """

    scenario: str
    ended: str
    seconds: float


class RunFolder:
    """The files of one run. A line is appended to a file by a single write. Any other change writes a new
    file and renames it to the old one's name. Therefore `kill -9` damages nothing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self.figures_file = path / "figures.jsonl"
        self._ends_file = path / "scenarios.jsonl"
        self._machine_file = path / "machine.json"

    def figures(self) -> list[Figure]:
        """Return all figures stored so far."""
        return read(self.figures_file)

    def machine(self) -> dict[str, Any]:
        """Return the stored description of the machine, and of the run's versions of Vestal, of Python
        packages and of the peers with which Vestal is compared; empty if none is stored.
        """
        try:
            return dict(json.loads(self._machine_file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return {}

    def write_machine(self, machine: dict[str, Any]) -> None:
        """Store `machine`, the description of the computer on which the benchmark runs. The method `machine`
        returns it again.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        _replace(self._machine_file, json.dumps(machine, indent=2, ensure_ascii=False, sort_keys=True) + "\n")

    def skip(self, skipped: dict[str, str]) -> None:
        """Add the subjects that were left out, and the reasons, to the description of the machine."""
        machine = self.machine()
        machine["skipped"] = machine.get("skipped", {}) | skipped
        self.write_machine(machine)

    # --- how far the scenarios came ---

    def ends(self) -> dict[str, Ended]:
        """Return, by the name of each scenario, how its last attempt ended, with the total seconds of all its
        attempts.
        """
        ends: dict[str, Ended] = {}
        lines = self._ends_file.read_text().split("\n")[:-1] if self._ends_file.exists() else []
        for line in lines:
            end = Ended(**json.loads(line))
            earlier = ends[end.scenario].seconds if end.scenario in ends else 0.0
            ends[end.scenario] = Ended(end.scenario, end.ended, end.seconds + earlier)
        return ends

    def add_end(self, end: Ended) -> None:
        """Store how a scenario ended."""
        _append(self._ends_file, json.dumps(asdict(end)) + "\n")

    def begin(self, scenario: str, *, resumes_itself: bool = False) -> int:
        """Prepare the run for more rounds of a scenario, and return how many complete rounds of it are
        stored.

        If the scenario is done, nothing changes. Otherwise two things are deleted: the failures of the
        scenario as a whole, and the figures of its last round, because that round may be incomplete. A
        scenario that `resumes_itself` is started with all rounds again, and leaves out what is already
        stored. Its last round is therefore kept, and 0 is returned.
        """
        figures = self.figures()
        own = [figure for figure in figures if figure.scenario == scenario]
        last = max((figure.round for figure in own), default=0)
        if scenario in (ends := self.ends()) and ends[scenario].ended == DONE:
            return last
        last = last if not resumes_itself else last + 1
        kept = [figure for figure in figures if figure.scenario != scenario or 0 < figure.round < last]
        self.path.mkdir(parents=True, exist_ok=True)
        _replace(self.figures_file, "".join(map(to_line, kept)))
        return 0 if resumes_itself else max(last - 1, 0)


def new_run(results: Path, mode: str) -> RunFolder:
    """Return the folder of a new run, named after its mode and the local time. It is not created on
    disk yet.
    """
    return RunFolder(results / f"{mode}-{time.strftime('%Y%m%d-%H%M%S')}")


def latest_run(results: Path, mode: str) -> RunFolder | None:
    """Return the latest run of this mode; None if there is none. The names of runs sort by time."""
    found = sorted(path for path in results.glob(f"{mode}-*") if (path / "machine.json").exists())
    return RunFolder(found[-1]) if found else None


def _replace(file: Path, text: str) -> None:
    part = file.with_suffix(file.suffix + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, file)


def _append(file: Path, text: str) -> None:
    with file.open("a", encoding="utf-8") as stream:
        stream.write(text)
