"""Describe one backend (an LLM server) as the last health check found it. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Backend:
    """One LLM server as the last health check found it.

    `used` is False if no address is configured for it. `detail` says in words what is wrong. `unreachable`
    means that nothing listens at its address, or that the host name is unknown. `absent` means that it seems
    not to be installed (`presence.Presence` decides), which is not a fault.
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
        """Return `mlx` or `ollama`. The second backend of a kind is named `mlx-2`, and so on."""
        return self.name.partition("-")[0]

    @property
    def of_this_machine(self) -> bool:
        """Return True if the backend runs on this machine. Only such a backend can be recovered by this
        machine's host agent.
        """
        return self.name == self.kind

    @property
    def down(self) -> bool:
        """Return True if the backend is unhealthy although an address is configured for it and it seems to be
        installed.
        """
        return self.used and not self.healthy and not self.absent

    def serves(self, model: str) -> bool:
        """Return True if the backend is healthy and has the model."""
        return self.used and self.healthy and canonical(model) in self.models


def canonical(model: str) -> str:
    """Return the model's full name: `:latest` is added to a name without a tag, as in Ollama."""
    return model if ":" in model else f"{model}:latest"
