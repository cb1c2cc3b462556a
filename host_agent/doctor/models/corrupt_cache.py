"""Diagnose files of the prompt cache that are corrupt, or hold another block than their name says.

The engine deletes such a file when it reads the file. This diagnosis checks files for a few seconds and
deletes nothing; `vestal cache verify` checks every file in the same way.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from host_agent.doctor.finding import Diagnosis, Finding
from mlx_server.engine.prompt_cache.blob import Corrupt, decode
from vestal.config import Config
from vestal.platform.hidden_files import visible

NAME = "corrupt_cache"
BLOCKS_FOLDER = "prompts"
CHECK_FOR_S = 8.0
SHOWN_FILES = 3
REMEDY = "`vestal cache verify` deletes them; their prompts are then computed again."


def diagnose(config: Config) -> Iterator[Finding]:
    yield check_cache(config.home.cache, time.monotonic)


def check_cache(folder: Path, clock: Callable[[], float], check_for_s: float = CHECK_FOR_S) -> Finding:
    """Check the files of the prompt cache in `folder`, the newest first, for at most `check_for_s` seconds.
    Return a fault if any of the checked files is corrupt, else `ok`.

    The newest are the most likely to be damaged by a crash of the machine. `clock` returns the time in
    seconds.
    """
    paths = sorted(block_files(folder), key=_written_at, reverse=True)
    if not paths:
        return Finding(NAME, "ok", "The prompt cache has no files.")
    deadline, checked, faults = clock() + check_for_s, 0, dict[str, str]()
    for path in paths:
        if clock() > deadline:
            break
        if fault := _fault_or_read_error(path):
            faults[path.name] = fault
        checked += 1
    unchecked = len(paths) - checked
    rest = f"; {unchecked} more are left for `vestal cache verify`" if unchecked else ""
    if not faults:
        return Finding(NAME, "ok", f"{checked} files of the prompt cache are intact{rest}.")
    evidence = "; ".join(f"{name}: {fault}" for name, fault in list(faults.items())[:SHOWN_FILES])
    sentence = f"{len(faults)} of {checked} files of the prompt cache are corrupt{rest}."
    return Finding(NAME, "fault", sentence, REMEDY, evidence)


def block_files(folder: Path) -> list[Path]:
    """Return the files of all cached blocks in the cache's `folder`, sorted by name."""
    return sorted(visible((folder / BLOCKS_FOLDER).glob("*.safetensors")))


def file_fault(path: Path) -> str:
    """Return what is wrong with the file of a cached block, in words.

    Return an empty text if the file is intact and its name is the key of its block. Raises OSError if the
    file cannot be read.
    """
    try:
        facts, _ = decode(path.read_bytes())
    except Corrupt as error:
        return str(error)
    return "" if facts.get("key") == path.stem else "it is another block's"


def _fault_or_read_error(path: Path) -> str:
    try:
        return file_fault(path)
    except FileNotFoundError:
        return ""  # a running engine has deleted it meanwhile
    except OSError as error:
        return error.strerror or str(error)


def _written_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


DIAGNOSIS = Diagnosis(NAME, diagnose, CHECK_FOR_S + 20.0)
