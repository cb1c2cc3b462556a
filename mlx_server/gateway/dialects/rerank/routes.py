"""The routes that rank documents."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from mlx_server.gateway.dialects.api_document import takes
from mlx_server.gateway.dialects.bodies import read_body
from mlx_server.gateway.dialects.body_budget import SMALL_BYTES
from mlx_server.gateway.dialects.context import GatewayContext
from mlx_server.gateway.dialects.error_envelopes import request_id_headers
from mlx_server.gateway.dialects.rerank import DIALECT, render
from mlx_server.gateway.dialects.rerank.ranking import rank
from mlx_server.gateway.dialects.rerank.render import Ranking
from mlx_server.gateway.dialects.rerank.schema import RankingBody
from mlx_server.gateway.dialects.translation import translated
from mlx_server.gateway.errors import BadRequest, listed
from mlx_server.gateway.json_text import JsonResponse, json_bytes
from mlx_server.gateway.requests.model_presets import with_preset
from mlx_server.gateway.requests.model_requests import RerankRequest
from mlx_server.model_store import ModelEntry

JINA_PATH = "/v1/rerank"
"""The path of Jina's API, which returns the texts of the documents unless the client asks it not to."""


def router(context: GatewayContext) -> APIRouter:
    """Return the routes that rank documents."""
    routes = APIRouter()

    async def rerank(http: Request) -> Response:
        body = await read_body(http, RankingBody, context.max_body_bytes)
        model = await _model(context, body.model)
        request = await translated(http, lambda: with_preset(model, body, body.to_request(model.name)))
        if body.max_chunks_per_doc is not None:
            context.report_skipped(DIALECT, model.name, {"fields": ["max_chunks_per_doc"]})
        ranking = await rank(context, request, http)
        returns_documents = body.return_documents
        if returns_documents is None:
            returns_documents = http.url.path == JINA_PATH
        return await _response(body, model.name, request, ranking, returns_documents)

    for path in (JINA_PATH, "/v2/rerank", "/rerank"):
        routes.post(path, **takes(RankingBody))(rerank)
    for path in ("/v1/reranking", "/reranking"):  # llama-server's other names
        routes.post(path, include_in_schema=False)(rerank)
    return routes


async def _response(
    body: RankingBody, model: str, request: RerankRequest, ranking: Ranking, returns_documents: bool
) -> Response:
    """Return the response with the ranking. `returns_documents` says whether it contains the documents; for
    TEI's clients, `body.return_text` says so instead. If the documents are large, the body of the response is
    encoded in a thread, because it may contain them.
    """

    def answer() -> dict[str, Any] | list[dict[str, Any]]:
        texts = request.documents
        if body.is_tei:
            return render.scores_of_texts(ranking, body.top_n, texts, returns_text=bool(body.return_text))
        named = body.model or model
        return render.ranked(named, ranking, body.top_n, texts, returns_documents=returns_documents)

    headers = dict(request_id_headers(ranking.id))
    if sum(map(len, request.documents)) <= SMALL_BYTES:
        return JsonResponse(answer(), headers=headers)
    content = await asyncio.to_thread(lambda: json_bytes(answer()))
    return Response(content, media_type=JsonResponse.media_type, headers=headers)


async def _model(context: GatewayContext, name: str | None) -> ModelEntry:
    """Return the model that the body names. Without a name, return the only installed reranker. Raises
    GatewayError if there is no such model, or if a name is needed because there are several.
    """
    if name is not None:
        return await context.installed_models.get(name, "rerank")
    rerankers = [entry for entry in await context.installed_models.all() if entry.kind == "rerank"]
    if len(rerankers) != 1:
        names = listed([entry.name for entry in rerankers])
        raise BadRequest("invalid_request", f"model: is missing; there are: {names}")
    return rerankers[0]
