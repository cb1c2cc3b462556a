"""Which files a search may look into. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class Scope:
    """`agents` None means everybody's; `path` is how the file's path begins ("guide/"), "" any."""

    agents: Collection[str] | None = None
    path: str = ""

    @property
    def everything(self) -> bool:
        return self.agents is None and not self.path

    def takes(self, agent: str, path: str) -> bool:
        return (self.agents is None or agent in self.agents) and path.startswith(self.path)


EVERYTHING = Scope()
