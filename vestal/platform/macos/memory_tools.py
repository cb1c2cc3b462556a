"""Parse macOS's `vm_stat` and `memory_pressure -Q`. Pure."""

import re

VM_STAT_COMMAND = ("/usr/bin/vm_stat",)
MEMORY_PRESSURE_COMMAND = ("/usr/bin/memory_pressure", "-Q")
_PAGE_SIZE = re.compile(r"page size of (\d+) bytes")
_PAGES = re.compile(r'^"?([^":]+)"?:\s+(\d+)\.?$', re.MULTILINE)
_FREE_PERCENTAGE = re.compile(r"^System-wide memory free percentage:\s*(\d+)%", re.MULTILINE)


def parse_vm_stat(text: str) -> int | None:
    """Return the wired memory in bytes; None for a text that is not the output of `vm_stat`.

    A header gives the page size, then come lines of `Name:   PAGES.`. The page size is 16,384 bytes on Apple
    silicon and 4,096 on Intel.
    """
    page_size = _PAGE_SIZE.search(text)
    pages = dict(_PAGES.findall(text))
    if page_size is None or "Pages wired down" not in pages:
        return None
    return int(pages["Pages wired down"]) * int(page_size[1])


def parse_memory_pressure(text: str) -> float | None:
    """Return the fraction (0 to 1) of memory that is free, caches included, from `text`, the output of
    `memory_pressure -Q`. Return None if the text does not contain it.
    """
    found = _FREE_PERCENTAGE.search(text)
    return int(found[1]) / 100 if found else None
