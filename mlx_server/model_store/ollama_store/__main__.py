"""`python -m mlx_server.model_store.ollama_store [--json] [--store DIR] NAME...|--all`: import from Ollama.

Progress is printed to stdout, one line each. With `--json` each line is an object: {"model", "fraction",
"sentence", "bytes"} for progress, {"model", "notes": [...]} for an imported model, and {"model", "error":
{"code", "message", "remedy"}} for a failure. SIGTERM stops an import and deletes what is unfinished. Exit
codes: 0 done, 1 a model failed, 78 the configuration is wrong, 143 stopped by SIGTERM.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path
from typing import Any

from mlx_server.model_store.errors import ModelStoreError
from mlx_server.model_store.ollama_store.candidates import candidates, find_candidate
from mlx_server.model_store.ollama_store.importing import import_model
from mlx_server.model_store.ollama_store.manifests import default_store
from vestal.config import Config, ConfigError, load

EXIT_CONFIG = 78


def main(arguments: list[str] | None = None) -> int:
    """Import the models that `arguments` (those of the process by default) name, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m mlx_server.model_store.ollama_store")
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    parser.add_argument("--store", type=Path, default=None)
    parser.add_argument("--all", action="store_true", help="all that can be imported")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _exit_on_signal)
    try:
        config = load()
    except ConfigError as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIG
    return _import(config, options)


def _exit_on_signal(number: int, _frame: Any) -> None:
    """Raise SystemExit, so that the converter is killed and the staging folder is deleted on the way out."""
    sys.exit(128 + number)


def _import(config: Config, options: argparse.Namespace) -> int:
    store = options.store or default_store()
    names = options.names
    failed = 0
    last_line: dict[str, str] = {}

    def on_progress(name: str, fraction: float, sentence: str, total_bytes: int) -> None:
        body = {"model": name, "fraction": round(fraction, 4), "sentence": sentence, "bytes": total_bytes}
        line = f"{name}: {fraction:4.0%}  {sentence}"
        if last_line.get(name) != line:
            last_line[name] = line
            _print(options, line, body)

    if options.all:
        try:
            names = [each.model.name for each in candidates(config, store) if each.state != "refused"]
        except ModelStoreError as error:
            return _report(options, "", error)
    for name in names:
        try:
            notes = import_model(config, find_candidate(config, store, name), on_progress)
        except ModelStoreError as error:
            failed |= _report(options, name, error)
        else:
            _print(options, "\n".join(f"{name}: {note}" for note in notes), {"model": name, "notes": notes})
    return failed


def _report(options: argparse.Namespace, name: str, error: ModelStoreError) -> int:
    body = {"code": error.code, "message": error.message, "remedy": error.remedy}
    if options.json:
        print(json.dumps({"model": name, "error": body}, ensure_ascii=False), flush=True)
    else:
        print(f"{name}: {error}", file=sys.stderr)
    return 1


def _print(options: argparse.Namespace, line: str, body: dict[str, Any]) -> None:
    if options.json:
        print(json.dumps(body, ensure_ascii=False), flush=True)
    elif line:
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
