"""`vestal cache`: what the prompt cache takes on disk, and how to be rid of it."""

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path

from host_agent.config import Config

KEPT = "blas"  # links that the engine's next start needs


def run(options: argparse.Namespace, config: Config) -> int:
    entries = list(_entries(config.home.cache))
    size = sum(_size(entry) for entry in entries)
    if options.what == "show":
        print(f"{size / 1024**2:.1f} MiB in {config.home.cache}; `vestal cache clear` empties it")
        return 0
    for entry in entries:
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
    print(f"cleared {size / 1024**2:.1f} MiB from {config.home.cache}")
    return 0


def _entries(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from (entry for entry in folder.iterdir() if entry.name != KEPT)


def _size(entry: Path) -> int:
    files = entry.rglob("*") if entry.is_dir() else [entry]
    return sum(file.stat().st_size for file in files if file.is_file())
