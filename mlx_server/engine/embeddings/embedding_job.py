"""One `Embed` on its way through an encoder, a batch a step."""

from __future__ import annotations

from mlx_server.engine.embeddings.encoder import Encoder, batches
from mlx_server.engine.errors import RequestError
from mlx_server.engine.generation.prompts.length_check import tokenization_error
from mlx_server.protocol import Embed, Embedding, pack_vectors

READ_CHARS = 256 * 1024
"""More of a text is not read: it fills any context, and a tokenizer takes seconds for a megabyte."""


class EmbeddingJob:
    """Raises RequestError (`context_exceeded`, `empty_prompt`) when it is made."""

    def __init__(self, op: Embed, encoder: Encoder, now: float, load_s: float) -> None:
        if not op.texts:
            raise RequestError("empty_prompt", "There is nothing to embed: send at least one text.")
        self.id = op.id
        self._encoder = encoder
        self._rows = [self._fit(op, ids) for ids in self._tokenize(op)]
        self._todo = list(batches([len(row) for row in self._rows]))
        self._vectors: list[list[float]] = [[] for _ in self._rows]
        self._started_s, self._load_s = now, load_s

    def _tokenize(self, op: Embed) -> list[list[int]]:
        try:
            return self._encoder.tokenize([text[:READ_CHARS] for text in op.texts])
        except Exception as error:  # the tokenizer's library raises bare exceptions
            raise tokenization_error(error) from error

    def _fit(self, op: Embed, ids: list[int]) -> list[int]:
        limit = self._encoder.context_tokens
        if len(ids) > limit and not op.truncate:
            raise RequestError(
                "context_exceeded",
                f"A text has {len(ids)} tokens, and {op.model} takes {limit}: shorten it, or truncate.",
                prompt_tokens=len(ids),
                context_tokens=limit,
            )
        return self._encoder.cut(ids)

    def step(self) -> bool:
        """Encode one batch; True when all are done."""
        indices = self._todo.pop(0)
        vectors = self._encoder.encode([self._rows[i] for i in indices])
        for i, vector in zip(indices, vectors, strict=True):
            self._vectors[i] = vector
        return not self._todo

    def answer(self, now: float) -> Embedding:
        """The event for the finished job."""
        return Embedding(
            id=self.id,
            vectors=pack_vectors(self._vectors),
            dim=self._encoder.dim,
            prompt_tokens=sum(map(len, self._rows)),
            load_s=self._load_s,
            embed_s=now - self._started_s,
        )
