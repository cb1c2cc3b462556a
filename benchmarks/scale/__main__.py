"""Simulate machines that share their load and workers that share one Postgres, and write figures, plots and
tables. The docstring of the package `benchmarks.scale` describes the arguments.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks.scale import report
from benchmarks.scale.experiments import all_figures
from benchmarks.scale.parameters import read_parameters

FIGURES = Path(__file__).with_name("figures.json")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Run the simulation and write its results, or only write the plots and tables again, as the command
    line says.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale")
    parser.add_argument("what", nargs="?", choices=("run", "render"), default="run")
    parser.add_argument("--parameters", type=Path, help="print the tables for these, and write nothing")
    given = parser.parse_args()
    try:
        parameters = read_parameters(given.parameters) if given.parameters else read_parameters()
    except (OSError, ValueError) as error:
        sys.exit(f"The parameters cannot be used: {error}")
    if given.parameters:
        blocks = report.tables(all_figures(parameters, _say), parameters)
        print("\n\n".join(f"{name}\n\n{block}" for name, block in blocks.items()))
        return
    if given.what == "run":
        figures = all_figures(parameters, _say)
        FIGURES.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    report.write(json.loads(FIGURES.read_text(encoding="utf-8")), parameters)


if __name__ == "__main__":
    main()
