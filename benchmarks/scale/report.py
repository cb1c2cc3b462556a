"""Create the tables of docs/scale.md and its plots from the figures of the simulation. Only `write` writes
files.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.scale.experiments import LOADS, MACHINES, PLOTTED_LOADS, ROUTINGS
from benchmarks.scale.parameters import EngineParameters, Parameters, WorkerParameters
from benchmarks.scale.svg import plot
from mlx_server.gateway.answer_log import Event, pack_record
from mlx_server.gateway.peers.conversation import MAX_REMEMBERED
from mlx_server.gateway.peers.mirrored import MAX_BYTES
from mlx_server.gateway.peers.polling import POLL_S
from mlx_server.protocol import Token

REPO = Path(__file__).resolve().parents[2]
PAGE = REPO / "docs" / "scale.md"
PLOTS = Path(__file__).with_name("plots")
BEGIN, END = "<!-- python -m benchmarks.scale: {} -->", "<!-- end of {} -->"
SHOWN = ("each its own", "round robin", "fewest requests", "Vestal")
PEERS_SHARE = 0.05
"""The share of a core that a gateway may spend on its peers. In the table of limits, the limit is reached
there.
"""
POSTGRES_SHARE = 0.7
RECORD_BYTES = len(pack_record(Event(0, Token("1a2b3c4d-12", 12_345, " hello", 17))))
"""How many bytes a token takes in the records of its answer."""


def tables(figures: Mapping[str, Any], parameters: Parameters) -> dict[str, str]:
    """Return the generated tables of docs/scale.md as Markdown, by the names of the blocks that they fill.
    `figures` are what `all_figures` returned for `parameters`.
    """
    return {
        "routing": _routing(figures["served"]),
        "failures": _failures(figures["survived"]),
        "workers": _workers(figures["worked"]),
        "limits": _limits(parameters),
    }


def plots(figures: Mapping[str, Any]) -> dict[str, str]:
    """Return the plots as SVG by their file names."""
    found = {(row["machines"], row["routing"], row["per_hour"]): row for row in figures["served"]}
    waits = {name: [(load, found[10, name, load]["p95_s"]) for load in PLOTTED_LOADS] for name in ROUTINGS}
    computed = {
        name: [(load, 100 * found[10, name, load]["computed_share"]) for load in PLOTTED_LOADS]
        for name in ROUTINGS
    }
    load_label = "conversations that begin in an hour, for each of 10 machines"
    return {
        "first-token.svg": plot("First token, p95, in seconds", load_label, waits, 45),
        "computed.svg": plot("Prompt tokens that are computed, in %", load_label, computed, 60),
    }


def page(text: str, blocks: Mapping[str, str]) -> str:
    """Return the page `text` with new content in its generated blocks. `blocks` maps the name of each block
    to its new content. A block lies between the two HTML comments that BEGIN and END form with its name.
    Raises ValueError if one of these comments is missing.
    """
    for name, block in blocks.items():
        begin, end = BEGIN.format(name), END.format(name)
        if begin not in text or end not in text:
            raise ValueError(f"The page has no place for the block `{name}`.")
        before, rest = text.split(begin, 1)
        after = rest.split(end, 1)[1]
        text = f"{before}{begin}\n{block}\n{end}{after}"
    return text


def write(figures: Mapping[str, Any], parameters: Parameters) -> None:
    """Write the tables into docs/scale.md, and the plots into benchmarks/scale/plots. `figures` are what
    `all_figures` returned for `parameters`. Raises ValueError if the page has no place for a table.
    """
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), tables(figures, parameters)), encoding="utf-8")
    PLOTS.mkdir(exist_ok=True)
    for name, text in plots(figures).items():
        (PLOTS / name).write_text(text, encoding="utf-8")


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def _table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = list(titles)
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _routing(rows: list[dict[str, Any]]) -> str:
    found = {(row["machines"], row["routing"], row["per_hour"]): row for row in rows}

    def cell(machines: int, routing: str, load: int) -> str:
        row = found[machines, routing, load]
        return f"{row['p50_s']:.1f} · {row['p95_s']:.1f} · {_percent(row['computed_share'], 0)}"

    return _table(
        ("machines", "load of each", *SHOWN),
        (
            (str(count), f"{load} an hour", *(cell(count, name, load) for name in SHOWN))
            for count in MACHINES
            for load in LOADS
        ),
    )


def _failures(rows: list[dict[str, Any]]) -> str:
    return _table(
        ("machines", "", "cut off", "went on", "waited for its machine", "began again", "pause p50", "p95",
         "most taken over by one"),
        (
            (
                str(row["machines"]),
                row["routing"],
                *(str(row[key]) for key in ("cut_off", "continued", "waited", "began_again")),
                f"{row['pause_p50_s']:.1f} s",
                f"{row['pause_p95_s']:.0f} s",
                str(row["most_taken_over"]),
            )
            for row in rows
        ),
    )  # fmt: skip


def _workers(rows: list[dict[str, Any]]) -> str:
    return _table(
        ("workers", "tasks an hour", "taken over", "after (median, most)", "calls repeated",
         "Postgres at rest", "with tasks", "connections"),
        (
            (
                str(row["workers"]),
                f"{row['tasks_per_hour']:,}",
                str(row["taken_over"]),
                f"{row['pause_p50_s']:.0f} s, {row['pause_max_s']:.0f} s",
                _percent(row['repeated_calls_share']),
                _percent(row['postgres_rest_share']),
                _percent(row['postgres_share']),
                f"{row['connections']} to {row['connections_busy']:,}",
            )
            for row in rows
        ),
    )  # fmt: skip


def _limits(parameters: Parameters) -> str:
    return _table(
        ("what", "its figure", "reaches its limit at"),
        [*_engine_limits(parameters), *_gateway_limits(parameters), *_postgres_limits(parameters.workers)],
    )


def _tokens_per_s(engine: EngineParameters) -> float:
    """Return the tokens per second of an engine all of whose slots generate answers."""
    return engine.slots / engine.step_for(engine.slots)


def _engine_limits(parameters: Parameters) -> Iterator[tuple[str, ...]]:
    engine = parameters.engine
    figure = f"{engine.slots} answers at once, {_tokens_per_s(engine):.0f} tokens/s together"
    cached = (
        f"{engine.cache_tokens:,} cached tokens of prompts ({engine.cache_bytes / 2**30:.0f} GiB of disk)"
    )
    yield "engine", figure, cached


def _gateway_limits(parameters: Parameters) -> Iterator[tuple[str, ...]]:
    engine, load, gateway = parameters.engine, parameters.load, parameters.gateway
    per_s = 1 / gateway.token_s
    limit = f"{per_s:,.0f} tokens/s, {per_s / _tokens_per_s(engine):.0f} such machines"
    yield "gateway as the only entry", f"{gateway.token_s * 1e6:.0f} µs of CPU for a token", limit
    poll_share = (gateway.answer_health_s + gateway.ask_health_s) / POLL_S
    limit = f"{math.floor(PEERS_SHARE / poll_share)} peers for {_percent(PEERS_SHARE, 0)} of a core"
    yield "gateway: health of its peers", f"{poll_share * 1e3:.2f} ms a second for each", limit
    most = max(gateway.placement_s)
    figure = "; ".join(f"{s * 1e3:.2f} ms among {count}" for count, s in sorted(gateway.placement_s.items()))
    limit = f"{1 / gateway.placement_s[most]:,.0f} requests/s among {most} machines"
    yield "gateway: choice of a machine", figure, limit
    conversations = MAX_REMEMBERED / (2 * load.turns)
    limit = f"{conversations:,.0f} conversations of {load.turns:g} turns"
    yield "gateway: memory of prefixes", f"{MAX_REMEMBERED:,} beginnings", limit
    prompt_tokens = load.beginning_tokens + load.turns / 2 * (load.turn_tokens + load.answer_tokens)
    answer_bytes = prompt_tokens * load.bytes_per_token + load.answer_tokens * RECORD_BYTES
    answers = MAX_BYTES / answer_bytes
    figure = f"{MAX_BYTES // 2**20} MiB; {answer_bytes / 1000:.0f} kB an answer"
    yield (
        "peer: copies of running answers",
        figure,
        f"{answers:,.0f} answers, {answers / engine.slots:,.0f} full machines",
    )


def _postgres_limits(workers: WorkerParameters) -> Iterator[tuple[str, ...]]:
    figure = f"{workers.connections} to {workers.connections_busy} for each process"
    count = workers.server_connections // workers.connections_busy
    yield "Postgres: connections", figure, f"{count} busy processes at {workers.server_connections}"
    share = workers.transactions_at_rest_per_s * workers.transaction_s
    figure = f"{workers.transactions_at_rest_per_s:.1f} transactions/s, {_percent(share)} of a core each"
    limit = f"{POSTGRES_SHARE / share:.0f} workers for {_percent(POSTGRES_SHARE, 0)} of one core"
    yield "Postgres: workers at rest", figure, limit
