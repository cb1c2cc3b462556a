"""One LLM backend as the last check saw it. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Backend:
    """One LLM backend as last seen. `used` is false where no address is configured for it.

    `unreachable`: nothing listens there, or its name is unknown. `absent`: not installed, as far as can be
    told from here (`presence.Presence` says so); that is no fault.
    """

    name: str
    used: bool
    healthy: bool
    models: frozenset[str] = frozenset()
    detail: str = ""
    unreachable: bool = False
    absent: bool = False

    @property
    def kind(self) -> str:
        """`mlx` or `ollama`; a second host of a kind is named `mlx-2`."""
        return self.name.partition("-")[0]

    @property
    def of_this_machine(self) -> bool:
        """Whether it is the first address of its kind: the one that the host agent can heal."""
        return self.name == self.kind

    @property
    def down(self) -> bool:
        return self.used and not self.healthy and not self.absent

    def serves(self, model: str) -> bool:
        return self.used and self.healthy and canonical(model) in self.models


def canonical(model: str) -> str:
    """Ollama's rule: no tag means `latest`."""
    return model if ":" in model else f"{model}:latest"
