"""Check what a machine can check of the documentation: links, anchors, and the paths of architecture.md."""

from __future__ import annotations

import re
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
PAGES = [*REPO.glob("*.md"), *(REPO / "docs").rglob("*.md"), *REPO.glob("[!.]*/**/README.md")]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
PATH = re.compile(r"\b((?:vestal|mlx_server|host_agent|orchestrator|deploy|tests|benchmarks)/[\w./-]*[\w/])")


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
