"""Compute the answer to one `Rerank` operation, one batch of documents at a time."""

from __future__ import annotations

import math

from mlx_server.engine.embeddings.batches import PendingTexts
from mlx_server.engine.errors import EngineError, RequestError
from mlx_server.engine.generation.prompts.length_check import context_exceeded, tokenization_error
from mlx_server.engine.generation.prompts.token_ids import check_tokenizer_ids
from mlx_server.engine.reranking.pairs import Pair
from mlx_server.engine.reranking.reranker import Reranker
from mlx_server.protocol import Rerank, Reranked

MAX_READ_CHARS = 256 * 1024
"""The most characters that are tokenized of one document, and of all pairs in one slice. So many characters
fill any context. A limit is needed because a tokenizer takes up to 7 s for a megabyte.
"""

_CUT = "shorten it: documents are cut to fit, the query never is"


class RerankJob:
    """The documents of one `Rerank` operation, which are first tokenized in slices, then scored in batches.

    The constructor raises RequestError if there are no documents (`empty_prompt`), or if the query has more
    than MAX_READ_CHARS characters (`context_exceeded`). `now` is the current time, in seconds on the caller's
    clock. `load_s` is how many seconds the model took to load for this request, which the answer reports; 0
    if it was loaded already.
    """

    def __init__(self, op: Rerank, reranker: Reranker, now: float, load_s: float) -> None:
        if not op.documents:
            raise RequestError("empty_prompt", "There is nothing to rank: send at least one document.")
        self.id = op.id
        asked = op.context_tokens
        self._limit = reranker.context_tokens if asked is None else min(asked, reranker.context_tokens)
        if len(op.query) > MAX_READ_CHARS:
            raise RequestError(
                "context_exceeded",
                f"The query is too long: it has {len(op.query)} characters, and {MAX_READ_CHARS} are read at "
                f"most; {_CUT}.",
                context_tokens=self._limit,
            )
        self._op, self._reranker = op, reranker
        self._pairs: list[Pair] = []
        self._pending = PendingTexts([], packs=False)
        self._logits = [math.nan] * len(op.documents)
        self._started_s, self._load_s = now, load_s

    def tokenize_slice(self) -> bool:
        """Tokenize the next slice of the pairs, without MLX. Return True if all pairs are tokenized.

        Raises RequestError if the query leaves no room for a document, or if a document is too long and may
        not be cut (`context_exceeded`), or if a text cannot be tokenized (`invalid_request`).
        """
        documents, chars = list[str](), 0
        for document in self._op.documents[len(self._pairs) :]:
            chars += min(len(document), MAX_READ_CHARS) + len(self._op.query)
            if documents and chars > MAX_READ_CHARS:
                break
            documents.append(document[:MAX_READ_CHARS])
        try:
            pairs = self._reranker.tokenizer.pairs(self._op.query, documents, self._op.instruction)
        except Exception as error:  # the tokenizer's library raises bare exceptions
            raise tokenization_error(error) from error
        self._pairs += map(self._cut_or_refuse, pairs)
        if len(self._pairs) < len(self._op.documents):
            return False
        self._pending = PendingTexts([len(pair.ids) for pair in self._pairs], packs=False)
        return True

    def _cut_or_refuse(self, pair: Pair) -> Pair:
        op, limit = self._op, self._limit
        check_tokenizer_ids(pair.ids, self._reranker.token_rows, op.model)
        document_tokens = pair.end - pair.start
        others = len(pair.ids) - document_tokens
        if others + min(1, document_tokens) > limit:
            raise self._query_too_long(others)
        cut = pair.cut(limit, op.max_document_tokens)
        if not op.truncate and len(pair.cut(len(pair.ids), op.max_document_tokens).ids) > limit:
            remedy = "shorten the document, or let it be truncated"
            subject = "the query with a document"
            raise context_exceeded(op.model, len(pair.ids), limit, subject=subject, remedy=remedy)
        return cut

    def _query_too_long(self, tokens: int) -> RequestError:
        return context_exceeded(self._op.model, tokens, self._limit, subject="the query", remedy=_CUT)

    def compute_batch(self, max_tokens: int) -> bool:
        """Score the next batch of documents, of at most `max_tokens` tokens with their queries, or a single
        document. Return True if all documents are scored.
        """
        indices = self._pending.take(max_tokens)
        logits = self._reranker.logits([self._pairs[i] for i in indices])
        for i, logit in zip(indices, logits, strict=True):
            self._logits[i] = logit
        return not self._pending

    def answer(self, now: float) -> Reranked:
        """Return the event with the scores, which answers the `Rerank` operation. Call this only after
        `compute_batch` has returned True. `now` is the current time: the event reports how long the job has
        taken until then.

        Raises EngineError if a computed score is infinite or NaN, which JSON cannot express.
        """
        if not all(map(math.isfinite, self._logits)):
            raise EngineError("internal_error", "The model computed a score that is not a finite number.")
        raw = self._op.raw_scores
        return Reranked(
            id=self.id,
            scores=tuple(self._reranker.score(logit, raw=raw) for logit in self._logits),
            prompt_tokens=sum(len(pair.ids) for pair in self._pairs),
            load_s=self._load_s,
            rank_s=now - self._started_s,
        )
