"""Measure Vestal and its peers: `make bench`, `make bench BENCH=full`, `make bench BENCH="NAME …"`.

python -m benchmarks [quick]           every scenario once, in at most 10 minutes
python -m benchmarks full              every scenario in several rounds; continues where it was stopped
python -m benchmarks NAME …            only these measurements, nothing stored; --list lists them
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from pathlib import Path

from benchmarks.processes.gateway import installed_models
from benchmarks.runs.machine import describe, program_version
from benchmarks.runs.registry import SINGLE, module_names, scenarios
from benchmarks.runs.run_folder import RESULTS, RunFolder, latest_run, new_run
from benchmarks.runs.runner import FULL, QUICK, Order, is_whole, perform
from benchmarks.scenario import progress, table

CHAOS = "chaos (make chaos): requests in flight while engine, gateway and agent are killed and upgraded"


def main(arguments: list[str]) -> int:
    """Run the scenarios and store their figures if `arguments` is empty or begins with a mode, `quick` or
    `full`. Otherwise, run only the benchmarks that `arguments` names, and store nothing. Return the exit
    code.
    """
    mode = arguments[0] if arguments else QUICK
    if mode in (QUICK, FULL):
        return stored_run(mode, arguments[1:])
    return single(arguments)


def single(names: list[str]) -> int:
    """Run the named benchmarks one after the other, and return the highest exit code."""
    unknown = [name for name in names if name not in SINGLE and name not in scenarios()]
    if unknown:
        if unknown != ["--list"]:
            progress(f"There is no benchmark called {unknown[0]}. These are there:")
        about = {name: each.about for name, each in (SINGLE | scenarios()).items()}
        print("\n".join(f"{name:<22} {text}" for name, text in about.items()))
        print(CHAOS)
        return 0 if unknown == ["--list"] else 2
    modules = module_names()
    worst = 0
    for name in names:
        worst = max(worst, subprocess.run([sys.executable, "-m", modules[name]]).returncode)
    return worst


def stored_run(mode: str, arguments: list[str], results: Path = RESULTS) -> int:
    """Measure the scenarios in the mode `mode` (QUICK or FULL), store the figures in a folder below
    `results`, and print them. `arguments` has command-line options, such as `--only`. A full run that was
    stopped is continued; `_resumable` says when.

    Return the exit code: 0, or 1 if a scenario failed, 2 for an unknown scenario, 130 after an interruption.
    Raises SystemExit if an option is wrong or a built-in model is missing.
    """
    asked = _parser(mode).parse_args(arguments)
    known = scenarios()
    if unknown := [name for name in asked.only if name not in known]:
        progress(f"There is no scenario called {unknown[0]}: {', '.join(known)}.")
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    installed_models()  # exits with one sentence if the models are missing
    run = _resumable(results, asked) if mode == FULL else None
    if run is None:
        run = new_run(results, mode)
        run.write_machine(describe())
    progress(f"Figures go to {run.figures_file}.")
    try:
        code = perform(run, Order(mode, asked.only, asked.subjects, asked.rounds), list(known.values()))
    except KeyboardInterrupt:
        progress(
            f"Stopped. What was measured is in {run.path}." + (" The same command goes on." * (mode == FULL))
        )
        return 130
    print(table(run.figures()))
    progress(f"`python -m benchmarks.report publish {run.name}` makes benchmarks/RESULTS.md of this run.")
    return code


def _resumable(results: Path, asked: argparse.Namespace) -> RunFolder | None:
    """Return the latest full run if it can be continued, else None (always with `--new`).

    A run can be continued if it is unfinished and has measured the present version of the program. With
    `--resume`, it may have measured another version; the present version is then added to the versions in the
    run's description.
    """
    run = None if asked.new else latest_run(results, FULL)
    if run is None:
        return None
    wanted = [one for one in scenarios().values() if not asked.only or one.name in asked.only]
    if is_whole(run, wanted):
        progress(f"{run.name} has all of this; a new run begins.")
        return None
    measured = str(run.machine().get("vestal"))
    is_same = measured.split(", ")[-1] == program_version()
    if not is_same and not asked.resume:
        progress(
            f"{run.name} measured version {measured}; this is {program_version()}, so a new run begins. "
            "With --resume it goes on all the same."
        )
        return None
    progress(f"{run.name} goes on.")
    if not is_same:
        run.write_machine(run.machine() | {"vestal": f"{measured}, {program_version()}"})
    return run


def _parser(mode: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks {mode}")
    parser.add_argument("--only", nargs="+", default=[], metavar="SCENARIO", help="only these scenarios")
    parser.add_argument(
        "--subjects", nargs="+", default=[], metavar="NAME", help="only vestal or these peers"
    )
    parser.add_argument("--rounds", type=int, help="so many rounds of each scenario")
    parser.add_argument("--new", action="store_true", help="begin a new full run")
    parser.add_argument("--resume", action="store_true", help="go on although the program has changed")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
