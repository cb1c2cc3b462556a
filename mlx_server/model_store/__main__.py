"""`python -m mlx_server.model_store ensure|list|remove [NAME ...]`, used by `vestal up` and `vestal models`.

`ensure` without names takes `mlx.preload`. Progress goes to stdout, a line each; with `--json` an object
each, {"model", "fraction", "sentence", "bytes"}, the last the download's size or 0 until it is known; a
failure is {"model", "error": {...}}, a list {"models": [...]}. TERM ends a fetch, its tools and its staging
folder with it.
Exit codes: 0 done, 1 a model failed, 78 the configuration is wrong, 143 stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal
import sys
from typing import Any

from mlx_server.model_store import ModelStoreError, catalog, ensure, remove
from mlx_server.model_store.disk import size
from vestal.config import Config, ConfigError, load

EXIT_CONFIG = 78


def main(arguments: list[str] | None = None) -> int:
    """Run one command; its exit code."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _stop)
    try:
        config = load()
    except ConfigError as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIG
    return int(options.run(config, options))


def _stop(number: int, _frame: Any) -> None:
    """Unwinds, so that what was begun is ended: a host tool killed, a staging folder removed."""
    sys.exit(128 + number)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mlx_server.model_store")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    commands = parser.add_subparsers(required=True)
    for name, run, many in (("ensure", _ensure, "*"), ("list", _list, None), ("remove", _remove, "+")):
        command = commands.add_parser(name)
        command.set_defaults(run=run)
        command.add_argument("--json", action="store_true", default=argparse.SUPPRESS)
        if many:
            command.add_argument("names", nargs=many)
    return parser


def _ensure(config: Config, options: argparse.Namespace) -> int:
    failed = 0
    last: dict[str, str] = {}

    def on_progress(name: str, fraction: float, sentence: str, total_bytes: int) -> None:
        line = f"{name}: {fraction:4.0%}  {sentence}"
        if last.get(name) != line:
            last[name] = line
            body = {"model": name, "fraction": round(fraction, 4), "sentence": sentence, "bytes": total_bytes}
            _say(options, line, body)

    for name in options.names or config.mlx.preload:
        try:
            ensure(config, [name], on_progress)
        except ModelStoreError as error:
            failed += 1
            body = {"code": error.code, "message": error.message, "remedy": error.remedy}
            _say(options, f"{name}: {error}", {"model": name, "error": body}, sys.stderr)
    return 1 if failed else 0


def _list(config: Config, options: argparse.Namespace) -> int:
    entries = catalog(config)
    if options.json:
        models = [{**dataclasses.asdict(entry), "path": str(entry.path)} for entry in entries]
        _say(options, "", {"models": models})
        return 0
    for entry in entries:
        about = f"{entry.kind:8}  {entry.parameter_size:>8}  {entry.quantization:4}  {size(entry.bytes):>7}"
        print(f"{entry.name:32}  {about}  {entry.path}")
    return 0


def _remove(config: Config, options: argparse.Namespace) -> int:
    gone = {name: remove(config, name) for name in options.names}
    for name, done in gone.items():
        text = "removed" if done else "not in the store, nothing to remove"
        _say(options, f"{name}: {text}", {"model": name, "removed": done})
    return 0 if all(gone.values()) else 1


def _say(options: argparse.Namespace, line: str, body: dict[str, Any], stream: Any = None) -> None:
    if options.json:
        print(json.dumps(body, ensure_ascii=False), flush=True)
    else:
        print(line, file=stream or sys.stdout, flush=True)


if __name__ == "__main__":
    sys.exit(main())
