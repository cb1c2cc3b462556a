"""Check what a machine can check of the documentation: links, anchors, and the paths of architecture.md."""

from __future__ import annotations

import re
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
PAGES = [*REPO.glob("*.md"), *(REPO / "docs").rglob("*.md"), *REPO.glob("[!.]*/**/README.md")]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
PACKAGES = ("vestal", "mlx_server", "host_agent", "orchestrator")
FOLDERS = "vestal|mlx_server|host_agent|orchestrator|deploy|tests|benchmarks"
PATH = re.compile(rf"\b((?:{FOLDERS})/[\w./-]*[\w/])")
PATH_FROM_ROOT = re.compile(rf"(?<![\w./-])((?:docs|{FOLDERS})/[\w./-]*[\w/])")


def _anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def _broken_links(page: Path) -> list[str]:
    broken = []
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        if not linked.exists() or (anchor and anchor not in _anchors(linked)):
            broken.append(f"{page.relative_to(REPO)}: {target}")
    return broken


def test_links_of_the_documentation_lead_to_existing_pages_and_headings():
    pages = [page for page in PAGES if "node_modules" not in page.parts]
    assert len(pages) > 20
    assert not [broken for page in pages for broken in _broken_links(page)]


def test_paths_named_by_the_architecture_page_exist():
    named = set(PATH.findall((REPO / "docs" / "architecture.md").read_text(encoding="utf-8")))
    assert len(named) > 30
    assert not [path for path in sorted(named) if not (REPO / path).exists()]


def test_paths_named_by_the_documentation_and_the_example_files_exist():
    """`vestal.example.yaml` named a page that had been moved. The changelog may name what was there once."""
    pages = [page for page in PAGES if "node_modules" not in page.parts and page.name != "CHANGELOG.md"]
    pages += [REPO / name for name in ("vestal.example.yaml", "deploy/env.example", "docker-compose.yml")]
    named = {
        (str(page.relative_to(REPO)), path)
        for page in pages
        for path in PATH_FROM_ROOT.findall(page.read_text(encoding="utf-8"))
    }
    assert len(named) > 100
    assert not [(page, path) for page, path in sorted(named) if not (REPO / path).exists()]


def test_files_named_without_a_folder_by_the_architecture_page_exist():
    named = set(re.findall(r"`(\w+\.py)`", (REPO / "docs" / "architecture.md").read_text(encoding="utf-8")))
    there = {path.name for package in PACKAGES for path in (REPO / package).rglob("*.py")}
    assert len(named) > 20
    assert not named - there


def test_decisions_cited_in_the_code_exist_under_their_full_file_name():
    """The crash policy cited decision 19 for what decision 20 says, by its number alone."""
    cited = {
        (str(path.relative_to(REPO)), name)
        for package in (*PACKAGES, "tests", "benchmarks")
        for path in (REPO / package).rglob("*.py")
        for name in re.findall(r"docs/decisions/(\w[\w.…-]*)", path.read_text(encoding="utf-8"))
    }
    names = {path.name for path in (REPO / "docs" / "decisions").iterdir()}
    assert len(cited) > 10
    assert not [(path, name) for path, name in sorted(cited) if name.rstrip(".") not in names]
