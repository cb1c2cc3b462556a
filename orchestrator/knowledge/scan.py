"""Find what has changed in a folder since it was last embedded. Nothing is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from orchestrator.knowledge.folders import files
from orchestrator.knowledge.folders.files import KnowledgeFile, Skipped
from orchestrator.knowledge.store import Known


@dataclass
class Scan:
    """The differences between the files in a knowledge folder and the stored files.

    `files` counts the text files in the folder. `changed` has the files to embed, such as new files, files
    with new content, and files that another model embedded. `touched` has the files whose size or date
    differs but whose content is the same, by path, each with the new size and date to store. `gone` has the
    paths of stored files that are no longer text files in the folder, because they were deleted, say.
    `skipped` has the files and folders that were not read, each with the reason; files that are unreadable
    only for the moment are there, and not in `gone`.
    """

    files: int = 0
    changed: list[KnowledgeFile] = field(default_factory=list)
    touched: dict[str, Known] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


def scan(folder: Path, known: Mapping[str, Known], model: str, full: bool) -> Scan:
    """Return the differences between the files in `folder` and the stored files, which `known` has by path. A
    file counts as changed if it is new, if its content differs, if it was embedded with another model than
    `model`, or if its `sha256` in `known` is "".

    To compare the contents, read only the files whose size or date differs, or every file if `full` is true.
    What cannot be read at the moment, be it a file or `folder` itself, is listed in the result's `skipped`,
    and the stored files there do not count as gone.
    """
    result = Scan()
    present = set()
    for entry in files.walk(folder):
        if isinstance(entry, Skipped):
            result.skipped.append(entry)
            continue
        result.files += 1
        present.add(entry.path)
        _compare(entry, known.get(entry.path), model, full, result)
    kept = [skipped for skipped in result.skipped if skipped.temporary]
    missing = set(known) - present
    result.gone += sorted(path for path in missing if not any(skipped.covers(path) for skipped in kept))
    return result


def _compare(found: KnowledgeFile, before: Known | None, model: str, full: bool, result: Scan) -> None:
    if before is None or before.model != model or not before.sha256:
        result.changed.append(found)
        return
    now = replace(before, size=found.size, mtime_ns=found.mtime_ns)
    if now == before and not full:
        return
    sha256 = files.sha256(found)
    if isinstance(sha256, Skipped):
        result.skipped.append(sha256)
    elif sha256 != before.sha256:
        result.changed.append(found)
    elif now != before:
        result.touched[found.path] = now
