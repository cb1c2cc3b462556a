"""Report stored runs.

    python -m benchmarks.report show RUN            print the tables of a run
    python -m benchmarks.report publish RUN …       write RESULTS.md, the plots, and the README's block
    python -m benchmarks.report check               fail if these files do not match the published runs

The plots are drawn from the first run; further runs, such as one on another machine, get their own section.
"""

from __future__ import annotations

import sys

from benchmarks.report import publish, reasons
from benchmarks.runs.run_folder import RESULTS, RunFolder


def main(arguments: list[str]) -> int:
    """Carry out the command in `arguments`, and return the exit code."""
    match arguments:
        case ["show", name]:
            print(publish.page([publish.stored(RunFolder(RESULTS / name))], reasons.load()))
            return 0
        case ["publish", *names] if names:
            made, lacking = publish.published(names)
            publish.write(made)
            print("\n".join(made))
            for row in lacking:
                print(f"{row} is lost without a reason: add one to {reasons.FILE.name}.", file=sys.stderr)
            return int(bool(lacking))
        case ["check"]:
            made, _ = publish.published(publish.published_runs())
            stale = publish.out_of_date(made)
            print("\n".join(f"{name} is not what the figures give." for name in stale))
            return int(bool(stale))
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (FileNotFoundError, ValueError) as error:
        sys.exit(str(error))
