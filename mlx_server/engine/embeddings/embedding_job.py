"""Computes the answer to one `Embed` operation, a batch of texts per step."""

from __future__ import annotations

import math
from itertools import chain

from mlx_server.engine.embeddings.encoder import Encoder, batch_by_length
from mlx_server.engine.errors import EngineError, RequestError
from mlx_server.engine.generation.prompts.length_check import tokenization_error
from mlx_server.engine.generation.prompts.token_ids import check_tokenizer_ids
from mlx_server.protocol import Embed, Embedding, pack_vectors

MAX_READ_CHARS = 256 * 1024
"""Only so many characters of a text are tokenized. They fill any context, and a tokenizer takes seconds for a
megabyte."""


class EmbeddingJob:
    """The texts of one `Embed`, tokenized, and the vectors computed so far.

    Creating the job may take seconds, and does not use MLX. It raises RequestError if there are no texts
    (`empty_prompt`), a text is too long and must not be truncated (`context_exceeded`), or one cannot be
    tokenized (`invalid_request`). Times are in seconds on the caller's clock.
    """

    def __init__(self, op: Embed, encoder: Encoder, now: float, load_s: float) -> None:
        if not op.texts:
            raise RequestError("empty_prompt", "There is nothing to embed: send at least one text.")
        self.id = op.id
        self._encoder = encoder
        self._token_ids = [self._truncate_or_refuse(op, ids) for ids in self._tokenize(op)]
        self._pending_batches = list(batch_by_length([len(ids) for ids in self._token_ids]))
        self._vectors: list[list[float]] = [[] for _ in self._token_ids]
        self._started_s, self._load_s = now, load_s

    def _tokenize(self, op: Embed) -> list[list[int]]:
        try:
            token_ids = self._encoder.tokenize([text[:MAX_READ_CHARS] for text in op.texts])
        except Exception as error:  # the tokenizer's library raises bare exceptions
            raise tokenization_error(error) from error
        for ids in token_ids:
            check_tokenizer_ids(ids, self._encoder.token_rows, op.model)
        return token_ids

    def _truncate_or_refuse(self, op: Embed, ids: list[int]) -> list[int]:
        limit = self._encoder.context_tokens
        if len(ids) > limit and not op.truncate:
            raise RequestError(
                "context_exceeded",
                f"A text has {len(ids)} tokens, and {op.model} takes {limit}: shorten it, or truncate.",
                prompt_tokens=len(ids),
                context_tokens=limit,
            )
        return self._encoder.truncate(ids)

    def step(self) -> bool:
        """Encode one batch of texts, and return whether it was the last."""
        indices = self._pending_batches.pop(0)
        vectors = self._encoder.encode([self._token_ids[i] for i in indices])
        for i, vector in zip(indices, vectors, strict=True):
            self._vectors[i] = vector
        return not self._pending_batches

    def answer(self, now: float) -> Embedding:
        """Return the event that answers the operation, once the last step is done.

        Raises EngineError if the model has computed a number that JSON cannot express.
        """
        if not all(map(math.isfinite, chain.from_iterable(self._vectors))):
            raise EngineError("internal_error", "The model computed a vector that is not of finite numbers.")
        return Embedding(
            id=self.id,
            vectors=pack_vectors(self._vectors),
            dim=self._encoder.dim,
            prompt_tokens=sum(map(len, self._token_ids)),
            load_s=self._load_s,
            embed_s=now - self._started_s,
        )
