"""Compute the answer to one `Embed` operation, one batch of texts at a time."""

from __future__ import annotations

import math
from itertools import chain

from mlx_server.engine.embeddings.encoder import Encoder
from mlx_server.engine.errors import EngineError, RequestError
from mlx_server.engine.generation.prompts.length_check import context_exceeded, tokenization_error
from mlx_server.engine.generation.prompts.token_ids import check_tokenizer_ids
from mlx_server.protocol import Embed, Embedding, pack_vectors

MAX_READ_CHARS = 256 * 1024
"""The most characters that are tokenized of one text, and of all texts in one slice. So many characters fill
any context. A limit is needed because a tokenizer takes up to 7 s for a megabyte.
"""


class EmbeddingJob:
    """The texts of one `Embed` operation, which are first tokenized in slices, then encoded in batches.

    The constructor raises RequestError if there are no texts (`empty_prompt`), or if the context that `op`
    requests only has room for the special tokens (`context_exceeded`). `now` is when the job begins; this
    time and the `now` of `answer` are in seconds on the caller's clock. `load_s` is for how many seconds the
    operation waited for the model's load, which the answer reports.
    """

    def __init__(self, op: Embed, encoder: Encoder, now: float, load_s: float) -> None:
        if not op.texts:
            raise RequestError("empty_prompt", "There is nothing to embed: send at least one text.")
        self.id = op.id
        asked = op.context_tokens
        self._limit = encoder.context_tokens if asked is None else min(asked, encoder.context_tokens)
        if asked is not None and self._limit <= encoder.tokenizer.special_tokens:
            raise RequestError(
                "context_exceeded",
                "The input after truncation exceeds maximum context length: "
                f"a context of {asked} tokens is too short for any text; {op.model} adds "
                f"{encoder.tokenizer.special_tokens} of its own, and takes {encoder.context_tokens}.",
                context_tokens=self._limit,
            )
        self._op, self._encoder = op, encoder
        self._token_ids: list[list[int]] = []
        self._pending = encoder.pending([])
        self._vectors: list[list[float]] = [[] for _ in op.texts]
        self._started_s, self._load_s = now, load_s

    def tokenize_slice(self) -> bool:
        """Tokenize the next slice of the texts, without MLX. Return True if all texts are tokenized.

        Raises RequestError if a text is too long and may not be truncated (`context_exceeded`), or if a text
        cannot be tokenized (`invalid_request`).
        """
        texts, chars = list[str](), 0
        for text in self._op.texts[len(self._token_ids) :]:
            chars += min(len(text), MAX_READ_CHARS)
            if texts and chars > MAX_READ_CHARS:
                break
            texts.append(text[:MAX_READ_CHARS])
        try:
            token_ids = self._encoder.tokenizer.tokenize(texts)
        except Exception as error:  # the tokenizer's library raises bare exceptions
            raise tokenization_error(error) from error
        self._token_ids += map(self._truncate_or_refuse, token_ids)
        if len(self._token_ids) < len(self._op.texts):
            return False
        self._pending = self._encoder.pending([len(ids) for ids in self._token_ids])
        return True

    def _truncate_or_refuse(self, ids: list[int]) -> list[int]:
        model, limit = self._op.model, self._limit
        check_tokenizer_ids(ids, self._encoder.token_rows, model)
        if len(ids) > limit and not self._op.truncate:
            remedy = "shorten it, or let it be truncated"
            raise context_exceeded(model, len(ids), limit, subject="a text", remedy=remedy)
        return self._encoder.tokenizer.truncate(ids, limit)

    def compute_batch(self, max_tokens: int) -> bool:
        """Encode the next batch of texts, of at most `max_tokens` tokens or a single text. Return True if all
        texts are encoded.
        """
        indices = self._pending.take(max_tokens)
        vectors = self._encoder.encode([self._token_ids[i] for i in indices])
        for i, vector in zip(indices, vectors, strict=True):
            self._vectors[i] = vector
        return not self._pending

    def answer(self, now: float) -> Embedding:
        """Return the event that answers the operation. It may be called once `compute_batch` has returned
        True.

        Raises EngineError if a computed number is infinite or NaN, which JSON cannot express.
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
