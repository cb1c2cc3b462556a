"""Rank the best results of a search again, with a model that reads the question and each result together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.errors import BackendError
from orchestrator.knowledge.llm_interfaces import Reranker

CANDIDATES = 40
"""How many results are ranked again: as many as each ranking of a small search returns."""
WAIT_S = 5.0
"""How many seconds the model may take. It is short because a person waits, and the results are already in a
good order.
"""


@dataclass(frozen=True)
class Reranking:
    """Scores search results with `model`. If there are no scores after `wait_s` seconds, the results keep the
    order in which the search found them.
    """

    client: Reranker
    model: str
    wait_s: float = WAIT_S

    async def scores(self, query: str, texts: Sequence[str]) -> tuple[list[float] | None, str]:
        """Return one score per text, in order, and "". If the model did not answer in time or failed, return
        None and a note that says why.
        """
        try:
            async with asyncio.timeout(self.wait_s):
                return await self.client.rerank(self.model, query, list(texts)), ""
        except TimeoutError:
            return None, f"not ranked by {self.model}: it did not answer within {self.wait_s:g} s"
        except BackendError as error:
            return None, f"not ranked by {self.model}: {error.message}"
