"""Paths in folders of other users, which the agent may not look into."""

from __future__ import annotations

import ast
from pathlib import Path

import host_agent.services
from host_agent.services.orchestrator.knowledge_mounts import missing_folders
from vestal.config import load

SERVICES = Path(host_agent.services.__file__).parent
RAISING = frozenset({"exists", "is_dir", "is_file", "is_mount", "is_socket", "is_symlink"})


def test_services_look_at_paths_only_by_functions_that_raise_no_permission_error():
    """Until Python 3.14, `Path.is_file()` and its like raise PermissionError if this user may not look into a
    folder of the path. `os.path.isfile` and its like return False.
    """
    found = [
        f"{path.relative_to(SERVICES)}:{node.lineno} {node.func.attr}"
        for path in SERVICES.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in RAISING
        if ast.unparse(node.func.value) != "os.path"
    ]
    assert found == []


def test_knowledge_folder_that_cannot_be_looked_into_counts_as_missing(tmp_path: Path):
    folder = f"/{'x' * 300}/notes"  # too long a name: the system refuses it to every user
    config = load({"VESTAL_HOME": str(tmp_path), "VESTAL_ORCHESTRATOR__KNOWLEDGE": folder})
    assert [str(path) for _, path in missing_folders(config)] == [folder]
