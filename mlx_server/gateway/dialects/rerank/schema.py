"""The body that ranks documents, and the model request that it means. Pure.

Jina, Cohere, llama-server and vLLM call the texts `documents`; TEI calls them `texts`, and its clients read
another answer. `model` may be missing, because TEI and llama-server serve only one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from mlx_server.gateway.dialects.bodies import Body, ListOf, ModelName, WholeNumber, not_supported
from mlx_server.gateway.dialects.sampling_fields import INT32_LIMIT
from mlx_server.gateway.errors import BadRequest
from mlx_server.gateway.requests.model_requests import RerankRequest

MAX_DOCUMENTS = 10_000
"""Cohere takes as many. Their scores take minutes with a large model, and the client waits for all."""


class RankingBody(Body):
    """The body of every route that ranks documents.

    A document may be an object with a `text`; its further fields, which Cohere's v1 and Jina take, are
    not read. `max_chunks_per_doc` has no effect: a document is read up to the model's limit, as one chunk.
    """

    model: ModelName | None = None
    query: str
    documents: ListOf[str | dict[str, Any]] | None = None
    texts: ListOf[str] | None = None
    top_n: WholeNumber | None = Field(default=None, ge=1)
    return_documents: bool | None = None
    return_text: bool | None = None
    max_tokens_per_doc: WholeNumber | None = Field(default=None, ge=1, lt=INT32_LIMIT)
    max_chunks_per_doc: WholeNumber | None = Field(default=None, ge=1)
    instruction: str | None = None
    rank_fields: ListOf[str] | None = None
    truncate: bool | None = None
    truncation_direction: Literal["right", "Right", "left", "Left"] | None = None
    raw_scores: bool | None = None

    @property
    def is_tei(self) -> bool:
        """Return whether the client reads TEI's answer: a list of scores without anything around it."""
        return self.documents is None and self.texts is not None

    @property
    def document_texts(self) -> tuple[str, ...]:
        """Return the text of each document. Raises BadRequest if there are none, or too many."""
        if self.documents is not None and self.texts is not None:
            raise BadRequest("invalid_request", "texts: give either documents or texts, not both")
        name, given = ("texts", self.texts) if self.is_tei else ("documents", self.documents)
        if given is None:
            raise BadRequest("invalid_request", "documents: is missing")
        if not given:
            raise BadRequest("invalid_request", f"{name}: give at least one document")
        if len(given) > MAX_DOCUMENTS:
            message = f"{name}: give at most {MAX_DOCUMENTS} documents (given: {len(given)})"
            raise BadRequest("invalid_request", message, documents=len(given), most=MAX_DOCUMENTS)
        return tuple(_text(each, f"{name}.{index}") for index, each in enumerate(given))

    def to_request(self, model: str) -> RerankRequest:
        """Return the request for the model of this canonical name. Raises BadRequest."""
        if self.truncation_direction in ("left", "Left"):
            not_supported("truncation_direction", "long documents lose their end; leave it out")
        if self.rank_fields not in (None, [], ["text"]):
            not_supported("rank_fields", "only the field text is ranked; put what counts into it")
        if not self.query.strip():
            raise BadRequest("invalid_request", "query: give a text")
        return RerankRequest(
            model,
            self.query,
            self.document_texts,
            self.instruction or None,
            self.truncate is not False,
            self.max_tokens_per_doc,
            bool(self.raw_scores),
        )


def _text(document: str | Mapping[str, Any], where: str) -> str:
    """Return the text of a document. Raises BadRequest."""
    if isinstance(document, str):
        return document
    text = document.get("text")
    if not isinstance(text, str):
        fault = "should be a string" if "text" in document else "is missing"
        raise BadRequest("invalid_request", f"{where}.text: {fault}")
    return text
