"""Describe which files a search covers. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class Scope:
    """The limits of a search: the agents whose files it covers (None: all agents), and a prefix of their
    paths, such as "guide/" ("": all paths).
    """

    agents: Collection[str] | None = None
    path: str = ""

    @property
    def everything(self) -> bool:
        """Return True if the scope excludes no file."""
        return self.agents is None and not self.path

    def contains(self, agent: str, path: str) -> bool:
        """Return True if the file `path` of `agent` is in the scope."""
        return (self.agents is None or agent in self.agents) and path.startswith(self.path)


EVERYTHING = Scope()
