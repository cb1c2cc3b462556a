"""The body of a request to rank documents, and its conversion to a request for a model. Pure.

Jina, Cohere, llama-server and vLLM call the texts `documents`. TEI calls them `texts`, and its clients expect
an answer of another form. `model` may be missing, because TEI and llama-server serve only one model.
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
"""How many documents a body may have, which is also Cohere's limit. Scoring so many takes minutes with a
large model, and the client waits for all scores."""


class RankingBody(Body):
    """The body of every route that ranks documents.

    The documents are in `documents`, or for TEI's clients in `texts`; a body with both is refused.
    `return_documents` asks for the texts in the answer, as `return_text` does for TEI's clients. A document
    may be an object, as Cohere's v1 and Jina accept it: only its field `text` is ranked, and `rank_fields`
    must not name another.

    `instruction` describes the task to models whose prompt has a place for it. The end of a document that is
    longer than `max_tokens_per_doc`, or than the model's limit, is cut off. The `truncation_direction`
    `left`, which would cut off the beginning, is refused. If `truncate` is false, a document over the model's
    limit makes the request fail. `max_chunks_per_doc` has no effect, because each document is one chunk. With
    `raw_scores`, the scores are the model's logits.
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
        """Return whether the client expects TEI's answer, which is a bare list of scores."""
        return self.documents is None and self.texts is not None

    @property
    def document_texts(self) -> tuple[str, ...]:
        """Return the text of each document. Raises BadRequest if there is no document, there are too many, or
        one has no text.
        """
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
        """Return the ranking request. `model` is the model's canonical name. Raises BadRequest if the query
        or the documents cannot be used, or a field asks for something unsupported.
        """
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
    """Return the text of a document. Raises BadRequest if the document is an object without a text. `where`
    is the document's path in the body.
    """
    if isinstance(document, str):
        return document
    text = document.get("text")
    if not isinstance(text, str):
        fault = "should be a string" if "text" in document else "is missing"
        raise BadRequest("invalid_request", f"{where}.text: {fault}")
    return text
