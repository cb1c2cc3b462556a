"""`vestal cache`: what the prompt cache keeps on disk; to look at, to check, and to be rid of.

All of it works while an engine runs: what is gone it misses, and a folder that is gone it forgets.
"""

import argparse
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from host_agent.cli.inspect import cache_use
from host_agent.doctor.models import corrupt_cache
from mlx_server.engine.prompt_cache.blob import Corrupt, read_facts
from vestal.config import Config

KEPT = "blas"  # links that the engine's next start needs
CORRUPT = 1
"""Exit code of `verify` where it found some."""


@dataclass
class Share:
    """What one model has: `tokens` and `bytes` of all its blocks; `used_s` is in seconds since the epoch."""

    model: str
    blocks: int = 0
    tokens: int = 0
    bytes: int = 0
    used_s: float = 0.0


def run(options: argparse.Namespace, config: Config) -> int:
    folder = config.home.cache
    if options.what == "verify":
        return _verify(folder, as_json=options.json)
    if options.what == "clear":
        return _clear(folder, as_json=options.json)
    return _list(folder, cache_use.ask(config.mlx.port), as_json=options.json)


# --- ls ---


def _list(folder: Path, use: dict[str, int] | None, *, as_json: bool) -> int:
    """`use` as the engine that runs tells it."""
    shares, unreadable = _shares(folder)
    if as_json:
        models = [asdict(share) for share in shares]
        told = {"folder": str(folder), "models": models, "unreadable": unreadable, "engine": use}
        print(json.dumps(told))
        return 0
    for share in shares:
        used = datetime.fromtimestamp(share.used_s).isoformat(" ", "minutes")
        print(
            f"{share.model:30} {share.blocks:6} blocks {share.tokens:8} tokens "
            f"{_mib(share.bytes):>11}  last used {used}"
        )
    if unreadable:
        print(f"{unreadable} files cannot be read; `vestal cache verify` drops them")
    if use is not None:
        print(cache_use.sentence(use))
    total = sum(_size(entry) for entry in _entries(folder))
    print(f"{_mib(total)} in {folder}; `vestal cache clear` empties it")
    return 0


def _shares(folder: Path) -> tuple[list[Share], int]:
    """By model, the last used first; and how many files tell nothing."""
    shares: dict[str, Share] = {}
    unreadable = 0
    for path in corrupt_cache.block_files(folder):
        try:
            with path.open("rb") as file:
                facts = read_facts(file)
            status = path.stat()
        except FileNotFoundError:
            continue  # an engine is at work here
        except (OSError, Corrupt):
            unreadable += 1
            continue
        model = facts.get("model", "unknown")
        share = shares.setdefault(model, Share(model))
        share.blocks += 1
        share.tokens += facts.get("tokens", "").count(",") + 1
        share.bytes += status.st_size
        share.used_s = max(share.used_s, status.st_mtime)
    return sorted(shares.values(), key=lambda share: -share.used_s), unreadable


# --- verify ---


def _verify(folder: Path, *, as_json: bool) -> int:
    """Reads every file, and drops what is corrupt."""
    checked, corrupt = 0, dict[str, str]()
    for path in corrupt_cache.block_files(folder):
        try:
            if fault := corrupt_cache.file_fault(path):
                corrupt[path.name] = fault
                path.unlink(missing_ok=True)
            checked += 1
        except FileNotFoundError:
            continue  # an engine is at work here
        except OSError as error:
            corrupt[path.name] = str(error)
            checked += 1
    if as_json:
        print(json.dumps({"checked": checked, "corrupt": corrupt}))
    else:
        for name, fault in corrupt.items():
            print(f"dropped {name}: {fault}")
        print(f"{checked} files checked, {len(corrupt)} corrupt")
    return CORRUPT if corrupt else 0


# --- clear ---


def _clear(folder: Path, *, as_json: bool) -> int:
    entries = list(_entries(folder))
    size = sum(_size(entry) for entry in entries)
    left = [str(entry) for entry in entries if not _remove(entry)]
    if as_json:
        print(json.dumps({"folder": str(folder), "cleared_bytes": size, "left": left}))
    else:
        print(f"cleared {_mib(size)} from {folder}")
        for name in left:
            print(f"could not remove {name}")
    return 1 if left else 0


def _remove(entry: Path) -> bool:
    """Moved away first: an engine sees all of it go at once, and none of it is half there."""
    aside = entry.with_name(f"{entry.name}.cleared-{os.getpid()}")
    try:
        entry.rename(aside)
    except FileNotFoundError:
        return True
    except OSError:
        aside = entry  # a mounted folder, for instance: its contents go
    if aside.is_dir() and not aside.is_symlink():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        aside.unlink(missing_ok=True)
    return not aside.exists()


# --- files ---


def _entries(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from (entry for entry in folder.iterdir() if entry.name != KEPT)


def _size(entry: Path) -> int:
    total = 0
    for file in entry.rglob("*") if entry.is_dir() else [entry]:
        try:
            total += file.stat().st_size if file.is_file() else 0
        except OSError:
            continue  # gone meanwhile
    return total


def _mib(size: int) -> str:
    return f"{size / 1024**2:.1f} MiB"
