"""Run one scenario in a separate process and store its figures. The runner starts this process and may
interrupt it.

    python -m benchmarks.runs.scenario_process FOLDER SCENARIO ROUNDS FIRST [SUBJECT …]

FOLDER is the folder of the run that stores the figures. ROUNDS is how many rounds are made, and FIRST the
number of the first one. SUBJECT is `vestal` or a peer, which is a program that Vestal is compared with; by
default, all are measured. The process ends itself when its standard input ends, because then the runner is
dead. Its exit code is 0, 1 after a failure, or 130 after an interruption.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks.figures import VESTAL, Figure, write
from benchmarks.runs.registry import scenarios
from benchmarks.runs.run_folder import RunFolder
from benchmarks.runs.terminate import END_S, kill_tree
from benchmarks.scenario import Scenario, Subjects, progress

INTERRUPTED_CODE = 130
NO_ROUND = 0
"""The round number of a failure of the scenario as a whole, which belongs to no round."""


def run_scenario(run: RunFolder, scenario: Scenario, rounds: int, first: int, subjects: Subjects) -> int:
    """Run `rounds` rounds of a scenario in this process, and store the figures in `run`. The stored rounds
    are numbered from `first`. `subjects` says which programs are measured, of Vestal and the peers with which
    it is compared.

    Return the exit code for this process: 0, 1 if the scenario raised an error, or INTERRUPTED_CODE if it was
    interrupted.
    """
    with run.figures_file.open("a", encoding="utf-8") as stream:

        def log(figure: Figure) -> None:
            write(stream, replace(figure, round=figure.round + first - 1, scenario=scenario.name))

        try:
            scenario.run(log, subjects, rounds)
        except KeyboardInterrupt:
            return INTERRUPTED_CODE
        except (Exception, SystemExit) as error:
            traceback.print_exc()
            cause = " ".join(f"{type(error).__name__}: {error}".split())[:500]
            write(
                stream,
                Figure(scenario.name, VESTAL, failed=cause, round=NO_ROUND, scenario=scenario.name),
            )
            return 1
        finally:
            run.skip(subjects.skipped)
    return 0


def _end_with_the_runner() -> None:
    """Wait until standard input ends. It is a pipe from the runner, so it ends if the runner dies. Then send
    SIGINT to this process, and kill its process tree if it still runs after END_S seconds.
    """
    with contextlib.suppress(OSError):
        while os.read(0, 1):
            pass
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(END_S)
    kill_tree(os.getpid())


def main(arguments: list[str], known: Callable[[], dict[str, Scenario]] = scenarios) -> int:
    """Run the scenario that the arguments name; `known` returns all scenarios by name. Return the
    exit code.
    """
    folder, name, rounds, first, *only = arguments
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    threading.Thread(target=_end_with_the_runner, daemon=True).start()
    scenario = known()[name]
    progress(f"\n{name}: {scenario.about}")
    run = RunFolder(Path(folder))
    have = [figure for figure in run.figures() if figure.scenario == name]
    return run_scenario(run, scenario, int(rounds), int(first), Subjects(only, have=have))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
