"""`vestal cache`: list, check and empty the prompt cache on disk.

All of this is safe while an engine runs: the engine computes again what a deleted block of the cache
contained.
"""

import argparse
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from host_agent.cli.inspect import cache_list
from host_agent.cli.screen.waiting import waiting_for
from host_agent.doctor.models import corrupt_cache
from vestal.config import Config
from vestal.config.units import format_size

KEPT_FOLDER = "blas"  # libraries that the next start of the engine needs
CORRUPT_EXIT_CODE = 1


def run(options: argparse.Namespace, config: Config) -> int:
    folder = config.home.cache
    if options.action == "verify":
        return _verify(folder, as_json=options.json)
    if options.action == "clear":
        return _clear(folder, as_json=options.json)
    if options.json:
        cache_list.print_as_json(folder, config.mlx.port)
    else:
        cache_list.print_for_people(folder, config.mlx.port)
        total_bytes = sum(_size_bytes(entry) for entry in _entries(folder))
        print(f"{format_size(total_bytes)} in {folder}; `vestal cache clear` empties it.")
    return 0


def _verify(folder: Path, *, as_json: bool) -> int:
    """Check every file of the cache, delete the corrupt ones, and print the result.

    Return CORRUPT_EXIT_CODE if a file was corrupt or unreadable, else 0.
    """
    checked, faults = 0, dict[str, str]()
    with waiting_for("reading the files"):
        for path in corrupt_cache.block_files(folder):
            try:
                if fault := corrupt_cache.file_fault(path):
                    faults[path.name] = fault
                    path.unlink(missing_ok=True)
                checked += 1
            except FileNotFoundError:
                continue  # a running engine has deleted the file meanwhile
            except OSError as error:
                faults[path.name] = str(error)
                checked += 1
    if as_json:
        print(json.dumps({"checked": checked, "corrupt": faults}))
    else:
        for name, fault in faults.items():
            print(f"deleted {name}: {fault}")
        print(f"{checked} files were checked, and {len(faults)} were corrupt.")
    return CORRUPT_EXIT_CODE if faults else 0


def _clear(folder: Path, *, as_json: bool) -> int:
    """Delete everything in the cache's `folder` except its subfolder KEPT_FOLDER, because the engine needs
    the libraries in that subfolder at its next start. Print the result. Return 1 if something could not be
    deleted, else 0.
    """
    entries = list(_entries(folder))
    cleared_bytes = sum(_size_bytes(entry) for entry in entries)
    remaining = [str(entry) for entry in entries if not _delete(entry)]
    if as_json:
        print(json.dumps({"folder": str(folder), "cleared_bytes": cleared_bytes, "left": remaining}))
    else:
        print(f"Deleted {format_size(cleared_bytes)} from {folder}.")
        for name in remaining:
            print(f"{name} could not be deleted.")
    return 1 if remaining else 0


def _delete(entry: Path) -> bool:
    """Delete a file or folder, and return whether it is gone.

    The entry is renamed first, so that a running engine never sees a folder that is half deleted.
    """
    renamed = entry.with_name(f"{entry.name}.cleared-{os.getpid()}")
    try:
        entry.rename(renamed)
    except FileNotFoundError:
        return True
    except OSError:
        renamed = entry  # a mounted folder cannot be renamed, so delete what is in it
    if renamed.is_dir() and not renamed.is_symlink():
        shutil.rmtree(renamed, ignore_errors=True)
    else:
        renamed.unlink(missing_ok=True)
    return not renamed.exists()


def _entries(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from (entry for entry in folder.iterdir() if entry.name != KEPT_FOLDER)


def _size_bytes(entry: Path) -> int:
    total = 0
    for file in entry.rglob("*") if entry.is_dir() else [entry]:
        try:
            total += file.stat().st_size if file.is_file() else 0
        except OSError:
            continue  # it was deleted meanwhile
    return total
