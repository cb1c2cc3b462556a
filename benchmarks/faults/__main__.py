"""Print the fault table: `python -m benchmarks.faults [TRIES] [--only FAULT,…] [--figures FILE]`.

With `--figures` the figures of each try are appended to a file, and tries that are already in the file are
not repeated.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import figures
from benchmarks.faults import run, table
from benchmarks.figures import Figure


def main(arguments: Sequence[str] | None = None) -> int:
    """Inject the faults that the options name, and print their table. Return 130 after Ctrl-C, else 0."""
    options = _options(arguments)
    kept = figures.read(options.figures) if options.figures else []
    new: list[Figure] = []
    with (
        options.figures.open("a", encoding="utf-8") if options.figures else contextlib.nullcontext() as stream
    ):

        def log(figure: Figure) -> None:
            new.append(figure)
            if stream is not None:
                figures.write(stream, figure)

        done = run.done_tries(kept)
        try:
            run.run_faults(log, run.GROUPS, options.tries, options.only, done, options.first_port)
        except KeyboardInterrupt:
            return 130
        finally:
            print(table.markdown([*kept, *new]), end="", flush=True)
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    names = [fault.name for group in run.GROUPS for fault in group.faults]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("tries", type=int, nargs="?", default=run.QUICK_TRIES)
    parser.add_argument("--only", type=lambda text: text.split(","), default=[], metavar="FAULT,…")
    parser.add_argument(
        "--figures", type=Path, metavar="FILE", help="keep the figures here, and go on from them"
    )
    parser.add_argument(
        "--first-port", type=int, default=0, metavar="PORT", help="of four; default: free ones"
    )
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.only if name not in names]:
        parser.error(f"there is no fault {unknown[0]!r}; choose among {', '.join(names)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
