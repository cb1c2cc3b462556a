"""Which files a search covers. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class Scope:
    """The limits of a search: to the files of `agents` (None: all), and to paths with a prefix such as
    "guide/" ("": all).
    """

    agents: Collection[str] | None = None
    path: str = ""

    @property
    def everything(self) -> bool:
        """Return True if the scope excludes nothing."""
        return self.agents is None and not self.path

    def contains(self, agent: str, path: str) -> bool:
        """Return True if this file of this agent is in the scope."""
        return (self.agents is None or agent in self.agents) and path.startswith(self.path)


EVERYTHING = Scope()
