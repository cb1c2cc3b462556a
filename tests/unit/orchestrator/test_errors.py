"""The tree of the orchestrator's errors."""

from __future__ import annotations

import ast
from pathlib import Path

from orchestrator import errors
from orchestrator.errors import OrchestratorError

PACKAGE = Path(errors.__file__).parent


def _with_depth(error: type[OrchestratorError], depth: int = 0) -> dict[str, int]:
    found = {error.__name__: depth}
    for child in error.__subclasses__():
        found |= _with_depth(child, depth + 1)
    return found


def test_docstring_of_errors_names_every_error_at_its_place_in_the_tree():
    """Four errors were in another module, and the tree lacked them."""
    tree = [line for line in (errors.__doc__ or "").splitlines() if "──" in line]
    shown = {line[line.index("── ") :].split()[1]: line.index("──") for line in tree}
    expected = _with_depth(OrchestratorError)
    del expected["OrchestratorError"]
    assert shown == {name: 4 * depth - 3 for name, depth in expected.items()}


def test_every_error_of_the_orchestrator_is_defined_in_errors():
    names = set(_with_depth(OrchestratorError))
    elsewhere = [
        f"{path.relative_to(PACKAGE)}: {node.name}"
        for path in PACKAGE.rglob("*.py")
        if path.name != "errors.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and names & {ast.unparse(base) for base in node.bases}
    ]
    assert not elsewhere
