"""Write `RESULTS.md`, the plots and the README's block from stored runs, or check that the written files
match the figures.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from benchmarks.faults import table as fault_table
from benchmarks.figures import Figure
from benchmarks.report import reasons
from benchmarks.report.markdown import Stored, TableMaker, lost_without_reason, run_markdown
from benchmarks.report.plots import BEGIN, END, FOLDER, readme_block, svg_files
from benchmarks.report.summary import rows_of
from benchmarks.runs.registry import scenarios
from benchmarks.runs.run_folder import RESULTS, RunFolder

REPO = Path(__file__).resolve().parents[2]
RESULTS_PAGE = "benchmarks/RESULTS.md"
RUNS = re.compile(r"<!-- runs: (.+?) -->")
HEAD = """# Results

<!-- runs: {runs} -->
<!-- Made by `python -m benchmarks.report publish {runs}` from benchmarks/results; do not edit. -->

`make bench BENCH=full` measures all of this anew. A cell has the median of the rounds and, in brackets, the
least and the most of them. The subjects took turns within each round. The last column compares with the best
peer of the row: the median of the rounds' ratios, above 1 where Vestal is better, whether more or less of the
unit is better.
"""


def stored(run: RunFolder) -> Stored:
    """Return the figures of a run, its machine, and how its scenarios ended. Raises FileNotFoundError if
    there is no such run with figures.
    """
    if not run.figures_file.exists():
        raise FileNotFoundError(f"There is no run {run.name} with figures in {run.path.parent}.")
    ends = {name: end.ended for name, end in run.ends().items()}
    return Stored(run.name, run.figures(), run.machine(), ends)


def page(runs: Sequence[Stored], why: Sequence[reasons.Reason]) -> str:
    """Return the content of `RESULTS.md`: a section for each run, because figures of different runs are not
    comparable. `why` has the reasons why Vestal is worse than a peer in some rows, which are shown below the
    tables with these rows.
    """
    about = {name: scenario.about for name, scenario in scenarios().items()}
    parts = [HEAD.format(runs=" ".join(run.name for run in runs))]
    for number, run in enumerate(runs):
        charts = svg_files(newest_figures(runs))
        links = [f"![{name.removesuffix('.svg')}](results/plots/{name})" for name in charts]
        plots = "\n" + "\n\n".join(links) + "\n" if number == len(runs) - 1 and links else ""
        parts.append(f"## {run.name}\n\n{run_markdown(run, about, why, own_tables())}{plots}")
    return "\n".join(parts)


def newest_figures(runs: Sequence[Stored]) -> list[Figure]:
    """Return the figures that the charts show: those of each scenario from the last run that has any."""
    by_scenario: dict[str, list[Figure]] = {}
    for run in runs:
        by_scenario |= {
            name: [figure for figure in run.figures if figure.scenario == name]
            for name in dict.fromkeys(figure.scenario for figure in run.figures)
        }
    return [figure for figures in by_scenario.values() for figure in figures]


def own_tables() -> dict[str, TableMaker]:
    """Return a dict from a scenario's name to the function that makes its table. Scenarios whose table has
    the usual columns are not in it.
    """
    return {"faults": fault_table.markdown}


def files(runs: Sequence[Stored], why: Sequence[reasons.Reason], readme: str) -> dict[str, str]:
    """Return the content of each file that is generated from the stored `runs`, by its path in the
    repository. `why` has the reasons why Vestal is worse than a peer in some rows. `readme` is the present
    content of the README, of which only the block of figures is replaced. Raises ValueError if it has no such
    block.
    """
    made = {RESULTS_PAGE: page(runs, why)}
    made |= {f"{FOLDER}/{name}": text for name, text in svg_files(newest_figures(runs)).items()}
    made["README.md"] = with_block(readme, readme_block(newest_figures(runs)))
    return made


def with_block(readme: str, block: str) -> str:
    """Return the README with its block of figures replaced. Raises ValueError if it has no such block."""
    if BEGIN not in readme or END not in readme:
        raise ValueError(f"The README has no lines {BEGIN} and {END}.")
    before, rest = readme.split(BEGIN, 1)
    return before + block + rest.split(END, 1)[1]


def published_runs(repo: Path = REPO) -> list[str]:
    """Return the names of the runs from which `RESULTS.md` was generated."""
    found = RUNS.search((repo / RESULTS_PAGE).read_text(encoding="utf-8"))
    return found[1].split() if found else []


def published(names: Sequence[str], repo: Path = REPO) -> tuple[dict[str, str], list[str]]:
    """Generate all files from the stored runs `names`, without writing them. Return their texts by their
    paths in the repository, and the names of the rows in which Vestal is worse than the best peer and for
    which `reasons.yaml` gives no reason.

    Raises FileNotFoundError if there is no such run with figures.
    """
    why = reasons.load()
    results = repo / RESULTS.relative_to(REPO)
    runs = [stored(RunFolder(results / name)) for name in names]
    lacking = [row for run in runs for row in lost_without_reason(rows_of(run.figures), why)]
    return files(runs, why, (repo / "README.md").read_text(encoding="utf-8")), lacking


def write(made: dict[str, str], repo: Path = REPO) -> None:
    """Write the generated files `made`, which maps their paths in the repository to their texts. Delete the
    plots in FOLDER that `made` does not have.
    """
    for old in (repo / FOLDER).glob("*.svg"):
        if f"{FOLDER}/{old.name}" not in made:
            old.unlink()
    for name, text in made.items():
        (repo / name).parent.mkdir(parents=True, exist_ok=True)
        (repo / name).write_text(text, encoding="utf-8")


def out_of_date(made: dict[str, str], repo: Path = REPO) -> list[str]:
    """Return the paths of the generated files that are missing or differ from `made`, and of the plots in
    FOLDER that `made` does not have. `made` maps the paths of generated files in the repository to their
    texts.
    """
    plots = {f"{FOLDER}/{old.name}" for old in (repo / FOLDER).glob("*.svg")}
    stale = [name for name, text in made.items() if not _is(repo / name, text)]
    return stale + sorted(plots - made.keys())


def _is(file: Path, text: str) -> bool:
    try:
        return file.read_text(encoding="utf-8") == text
    except FileNotFoundError:
        return False
