"""Import transformers in 0.4 s less time, and mlx-lm without letting it change this process's limits.

The faster import shortens each start, and each pause of a stream after a crash. To learn which modules it
contains, transformers reads all of its 1,600 source files, twice. Here, the result of the first scan is
written to the folder where Python keeps compiled sources, and read from there at the next start.

When mlx-lm is imported, it sets the soft limit of open files to 2,048 and the hard limit to 4,096. That would
lower higher limits. Where the hard limit is below 4,096, the import would fail with ValueError, because the
hard limit cannot be raised, and no engine could start. So `resource.setrlimit` does nothing during the
import.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import cache_from_source
from pathlib import Path
from types import ModuleType
from typing import Any

from mlx_server.engine.log import log_event
from vestal.best_effort.files import replace_file

SCANNER = "transformers.utils.import_utils"
Scan = Callable[[Any], dict[Any, Any]]


def import_transformers() -> None:
    """Import transformers, so that it scans its folder of models only once for each installed release."""
    finder = _ScannerFinder()
    sys.meta_path.insert(0, finder)
    try:
        import transformers  # noqa: F401
    finally:
        sys.meta_path.remove(finder)


def import_mlx_lm() -> None:
    """Import mlx-lm, but keep the resource limits of this process, which the import would change."""
    set_limit = resource.setrlimit
    resource.setrlimit = lambda *_: None
    try:
        import mlx_lm.utils  # noqa: F401
    finally:
        resource.setrlimit = set_limit


class _ScannerFinder(MetaPathFinder):
    """Finds the module of transformers that scans source files, and replaces its scan by one that
    is cached.
    """

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name == SCANNER else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_replace(module: ModuleType) -> None:
            execute(module)
            try:
                _replace_scan(module)
            except Exception as error:  # another release of transformers may lack these functions
                log_event("quick_import_skipped", cause=f"{type(error).__name__}: {error}")

        spec.loader.exec_module = execute_and_replace  # type: ignore[method-assign]
        return spec


def _replace_scan(module: Any) -> None:
    scan: Scan = module.create_import_structure_from_path
    models = Path(module.__file__).parents[1] / "models"
    found: list[dict[Any, Any]] = []

    def scan_once(module_path: Any) -> dict[Any, Any]:
        # transformers first passes the folder itself, and then its `__init__.py`.
        if str(module_path) not in (str(models), str(models / "__init__.py")):
            return scan(module_path)
        if not found:
            found.append(_read_or_scan(models, scan))
        return found[0]

    module.create_import_structure_from_path = scan_once


def _read_or_scan(models: Path, scan: Scan) -> dict[Any, Any]:
    """Return transformers' import structure of the folder `models`, read from the file that an earlier scan
    has written, or else from a new scan.
    """
    compiled = Path(cache_from_source(str(models / "__init__.py")))
    version = getattr(sys.modules.get("transformers"), "__version__", "unknown")
    file = compiled.with_name(f"contents-{version}-{models.stat().st_mtime_ns}.json")
    try:
        return _decoded(json.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError):
        contents = scan(models)
    if not sys.dont_write_bytecode and os.access(file.parent, os.W_OK):
        replace_file(file, json.dumps(_encoded(contents)), "import_cache")
    return contents


def _encoded(contents: dict[Any, Any]) -> list[Any]:
    """Convert transformers' import structure of a folder to JSON values. A key of the structure is either a
    set of required packages or the name of a subfolder.
    """
    return [
        [sorted(key), {module: sorted(names) for module, names in value.items()}]
        if isinstance(key, frozenset)
        else [key, _encoded(value)]
        for key, value in contents.items()
    ]


def _decoded(entries: list[Any]) -> dict[Any, Any]:
    """Return transformers' import structure of a folder, which lists the names in its modules and the
    packages that they require. `entries` are the JSON values to which `_encoded` has converted it.
    """
    return {
        key if isinstance(key, str) else frozenset(key): _decoded(value)
        if isinstance(key, str)
        else {module: set(names) for module, names in value.items()}
        for key, value in entries
    }
