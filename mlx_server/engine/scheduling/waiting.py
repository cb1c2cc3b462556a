"""Requests whose model is not in memory yet, in order of arrival. Pure."""

from __future__ import annotations

from mlx_server.protocol import Embed, Generate, Load

Waiting = Generate | Embed | Load


class WaitingRoom:
    """One list for all models: the first one's model is loaded first."""

    def __init__(self) -> None:
        self._ops: list[Waiting] = []

    def __len__(self) -> int:
        return len(self._ops)

    def add(self, op: Waiting) -> None:
        self._ops.append(op)

    def models(self) -> list[str]:
        """What is waited for, first come first."""
        return list(dict.fromkeys(op.model for op in self._ops))

    def resumes(self, model: str) -> bool:
        """Whether one that waits for `model` has been cut off in the middle, by an engine's end."""
        return any(op.model == model and isinstance(op, Generate) and op.emitted for op in self._ops)

    def take(self, model: str) -> list[Waiting]:
        """Those that wait for `model`; they leave the room."""
        taken = [op for op in self._ops if op.model == model]
        self._ops = [op for op in self._ops if op.model != model]
        return taken

    def remove(self, request: str) -> Waiting | None:
        """The request of that id leaves; None where it is not here."""
        for op in self._ops:
            if op.id == request:
                self._ops.remove(op)
                return op
        return None

    def clear(self) -> list[Waiting]:
        """All leave."""
        ops, self._ops = self._ops, []
        return ops
