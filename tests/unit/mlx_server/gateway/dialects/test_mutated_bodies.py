"""Any version of a real body becomes requests that can be sent, or a BadRequest with one short sentence."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings

from mlx_server import protocol
from mlx_server.gateway.dialects.anthropic import schema as anthropic
from mlx_server.gateway.dialects.bodies import Body, parsed_object, validated
from mlx_server.gateway.dialects.llama_cpp import schema as llama_cpp
from mlx_server.gateway.dialects.ollama import schema as ollama
from mlx_server.gateway.dialects.openai import schema as openai
from mlx_server.gateway.dialects.rerank import schema as rerank
from mlx_server.gateway.dialects.responses import creation as responses
from mlx_server.gateway.dialects.responses import schema as responses_schema
from mlx_server.gateway.errors import BadRequest
from mlx_server.gateway.images.files import ImageLimits
from mlx_server.gateway.images.reader import ImageReader
from mlx_server.gateway.requests.sendable import SendableRequest, repeated, sendable
from tests.bodies.mutated_bodies import BODIES, mutants

MAX_MESSAGE_LENGTH = 600
TYPES: dict[str, type[Body]] = {
    "/api/chat": ollama.ChatBody,
    "/api/generate": ollama.GenerateBody,
    "/api/embed": ollama.EmbedBody,
    "/api/embeddings": ollama.EmbeddingsBody,
    "/v1/chat/completions": openai.ChatBody,
    "/v1/completions": openai.CompletionBody,
    "/v1/embeddings": openai.EmbeddingsBody,
    "/v1/messages": anthropic.MessagesBody,
    "/v1/messages/count_tokens": anthropic.CountBody,
    "/v1/responses": responses_schema.CreateBody,
    "/v1/rerank": rerank.RankingBody,
    "/tokenize": llama_cpp.TokenizeBody,
    "/detokenize": llama_cpp.DetokenizeBody,
    "/apply-template": llama_cpp.ApplyTemplateBody,
}


def requests_of(body: Any, images: ImageReader | None = None) -> list[SendableRequest]:
    """Return what the handlers submit for `body`, to a text model unless `images` reads images."""
    match body:
        case openai.ChatBody() | openai.CompletionBody():
            assert body.answer_count >= 1
            requests = body.to_requests("m", 1, images)
            assert all(isinstance(body.echo_of(request), str) for request in requests)
            return repeated([sendable(request) for request in requests], body.n or 1)
        case ollama.ChatBody() | ollama.GenerateBody():
            return [
                sendable(body.to_request("m", 1, images) if body.has_prompt else body.to_load_request("m"))
            ]
        case anthropic.MessagesBody():
            return [sendable(body.to_request("m", 1, images))]
        case responses_schema.CreateBody():
            body.check()
            return [responses.translate(body, "m", 1, images=images).sendable]
        case anthropic.CountBody():
            return [sendable(body.to_count("m", images))]
        case _:
            return [sendable(body.to_request("m"))]


@pytest.mark.parametrize("path", TYPES)
def test_recorded_request_body_of_a_real_client_is_accepted_and_sent(path):
    for body in BODIES[path]:
        requests = requests_of(validated(body, TYPES[path]))
        assert requests
        for request in requests:
            protocol.decode_op(request.frame("r", []))


@pytest.mark.hypothesis
@pytest.mark.parametrize("path", TYPES)
def test_mutated_request_body_becomes_valid_engine_requests_or_is_refused_with_a_short_message(path):
    @settings(max_examples=150)
    @given(text=mutants(path))
    def each(text: str) -> None:
        try:
            body = validated(parsed_object(text.encode("utf-8", "surrogatepass")), TYPES[path])
            requests = requests_of(body)
            read = requests_of(body, ImageReader("m", ImageLimits(fetches_urls=True), reads_images=True))
            assert len(read) == len(requests)
        except BadRequest as refused:
            refusals.append(refused.message)
            return
        for request in requests[:3]:
            sent = protocol.decode_op(request.frame("r1", [5, 6]))
            assert getattr(sent, "id", None) == "r1"
            assert getattr(sent, "emitted", (5, 6)) == (5, 6)

    refusals: list[str] = []
    each()
    assert all(10 < len(message) < MAX_MESSAGE_LENGTH for message in refusals)
