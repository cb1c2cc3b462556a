"""Requests whose model is not in memory yet, in order of arrival. Pure."""

from __future__ import annotations

from mlx_server.protocol import Embed, Generate, Load

Waiting = Generate | Embed | Load


class WaitingRoom:
    """One list for all models: the first one's model is loaded first."""

    def __init__(self) -> None:
        self._ops: list[tuple[Waiting, float]] = []

    def __len__(self) -> int:
        return len(self._ops)

    def add(self, op: Waiting, now: float) -> None:
        self._ops.append((op, now))

    def models(self) -> list[str]:
        """What is waited for, first come first."""
        return list(dict.fromkeys(op.model for op, _ in self._ops))

    def take(self, model: str) -> list[tuple[Waiting, float]]:
        """Those that wait for `model`, with the time of their arrival; they leave the room."""
        taken = [pair for pair in self._ops if pair[0].model == model]
        self._ops = [pair for pair in self._ops if pair[0].model != model]
        return taken

    def remove(self, request: str) -> Waiting | None:
        """The request of that id leaves; None where it is not here."""
        for pair in self._ops:
            if pair[0].id == request:
                self._ops.remove(pair)
                return pair[0]
        return None

    def clear(self) -> list[Waiting]:
        """All leave."""
        ops, self._ops = [op for op, _ in self._ops], []
        return ops
