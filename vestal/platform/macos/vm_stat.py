"""Reads macOS's `vm_stat`: a header with the page size, then `Name:   COUNT.` in pages. Pure."""

import re
from dataclasses import dataclass

COMMAND = ("/usr/bin/vm_stat",)
_PAGE = re.compile(r"page size of (\d+) bytes")
_LINE = re.compile(r'^"?([^":]+)"?:\s+(\d+)\.?$', re.MULTILINE)


@dataclass(frozen=True)
class VmStat:
    """Bytes. The page size is 16,384 on Apple silicon and 4,096 on Intel: it is read, never assumed."""

    page_bytes: int
    wired_bytes: int
    free_bytes: int


def parse(text: str) -> VmStat | None:
    """None for a text that is not `vm_stat`'s."""
    page = _PAGE.search(text)
    pages = {name: int(count) for name, count in _LINE.findall(text)}
    if page is None or "Pages wired down" not in pages:
        return None
    size = int(page[1])
    return VmStat(size, pages["Pages wired down"] * size, pages.get("Pages free", 0) * size)
