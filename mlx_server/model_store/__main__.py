"""`python -m mlx_server.model_store ensure|pull|list|remove [NAME ...]`, which Vestal's other processes run.

`ensure` and `pull` fetch the named models that are missing; without names, those of `mlx.preload`. `pull`
first compares the memory that a model of the hub needs with the machine's, and refuses a model that does not
fit, unless `--force` is given.

Progress is printed to stdout, one line each. With `--json` each line is an object: {"model", "fraction",
"sentence", "bytes"} for progress, where `bytes` is the size of the download or 0 while it is unknown, and
{"bytes_per_s", "remaining_s"} once they are known; {"model", "error": {"code", "message", "remedy"}} for a
failure; {"models": [...]} for a list; {"model", "removed"} for a removal.

SIGTERM stops a fetch, kills the tools that it runs, and deletes its staging folder; what was downloaded from
the hub is kept. Exit codes: 0 done, 1 a model failed, 78 the configuration is wrong, 143 stopped by SIGTERM.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from typing import Any, TextIO

from mlx_server.model_store import ModelStoreError, catalog, ensure, remove
from mlx_server.model_store.plans import pull
from mlx_server.model_store.progress import Rate
from vestal.config import Config, ConfigError, load
from vestal.config.units import format_size

EXIT_CONFIG = 78


def main(arguments: list[str] | None = None) -> int:
    """Run the command in `arguments` (those of the process by default) and return the exit code."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _exit_on_signal)
    try:
        config = load()
    except ConfigError as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIG
    return int(options.run(config, options))


def _exit_on_signal(number: int, _frame: Any) -> None:
    """Raise SystemExit, so that running tools are killed and the staging folder is deleted on the way out."""
    sys.exit(128 + number)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mlx_server.model_store")
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    commands = parser.add_subparsers(required=True)
    actions = (
        ("ensure", _fetch, "*"),
        ("pull", _fetch, "*"),
        ("list", _list, None),
        ("remove", _remove, "+"),
    )
    for name, run, names in actions:
        command = commands.add_parser(name)
        command.set_defaults(run=run, action=name, force=False)
        if name == "pull":
            command.add_argument(
                "--force", action="store_true", help="fetch what does not fit into memory too"
            )
        command.add_argument("--json", action="store_true", default=argparse.SUPPRESS)
        if names:
            command.add_argument("names", nargs=names)
    return parser


def _fetch(config: Config, options: argparse.Namespace) -> int:
    failed = 0
    last_line: dict[str, str] = {}
    rates: dict[str, Rate] = {}

    def on_progress(name: str, fraction: float, sentence: str, total_bytes: int) -> None:
        body = {"model": name, "fraction": round(fraction, 4), "sentence": sentence, "bytes": total_bytes}
        if total_bytes:
            body |= _speed(rates.setdefault(name, Rate()), round(fraction * total_bytes), total_bytes)
        line = f"{name}: {fraction:4.0%}  {sentence}"
        if last_line.get(name) != line or "bytes_per_s" in body:
            last_line[name] = line
            _print(options, line, body)

    for name in options.names or config.mlx.preload:
        try:
            if options.action == "pull":
                pull(config, [name], on_progress, force=options.force)
            else:
                ensure(config, [name], on_progress)
        except ModelStoreError as error:
            failed += 1
            _print_error(options, name, error)
    return 1 if failed else 0


def _speed(rate: Rate, done_bytes: int, total_bytes: int) -> dict[str, float]:
    """Add the sample `done_bytes` to `rate`. Return {"bytes_per_s", "remaining_s"}: the download's speed, and
    how many seconds the rest will take at this speed; both are missing while the speed is unknown.
    """
    rate.add(time.monotonic(), done_bytes)
    remaining_s = rate.remaining_s(total_bytes)
    if remaining_s is None:
        return {}
    return {"bytes_per_s": round(rate.bytes_per_s()), "remaining_s": round(remaining_s, 1)}


def _list(config: Config, options: argparse.Namespace) -> int:
    entries = catalog(config)
    if options.json:
        _print(options, "", {"models": [entry.as_json() for entry in entries]})
        return 0
    for entry in entries:
        size = format_size(entry.bytes)
        about = f"{entry.kind:8}  {entry.parameter_size:>8}  {entry.quantization:4}  {size:>7}"
        made_from = f"  from {entry.made_from}" if entry.made_from else ""
        print(f"{entry.name:32}  {about}  {entry.path}{made_from}")
    return 0


def _remove(config: Config, options: argparse.Namespace) -> int:
    are_removed = []
    for name in options.names:
        try:
            done = remove(config, name)
        except ModelStoreError as error:
            done = False
            _print_error(options, name, error)
        else:
            text = "removed" if done else "not in the store, nothing to remove"
            _print(options, f"{name}: {text}", {"model": name, "removed": done})
        are_removed.append(done)
    return 0 if all(are_removed) else 1


def _print_error(options: argparse.Namespace, name: str, error: ModelStoreError) -> None:
    """Print why the model `name` could not be fetched or removed."""
    body = {"code": error.code, "message": error.message, "remedy": error.remedy}
    _print(options, f"{name}: {error}", {"model": name, "error": body}, sys.stderr)


def _print(
    options: argparse.Namespace, line: str, body: dict[str, Any], stream: TextIO | None = None
) -> None:
    """Print `body` as JSON to stdout if `--json` was given, else `line` to `stream` (stdout by default)."""
    if options.json:
        print(json.dumps(body, ensure_ascii=False), flush=True)
    else:
        print(line, file=stream or sys.stdout, flush=True)


if __name__ == "__main__":
    sys.exit(main())
