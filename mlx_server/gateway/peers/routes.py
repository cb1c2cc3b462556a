"""The routes by which gateways on other machines hand answers over to this gateway, cancel them, mirror their
own answers here, and read the records of an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections.abc import Container, Sequence

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from mlx_server.gateway.answer_log import Accepted, Record
from mlx_server.gateway.dialects.body_reading import receive
from mlx_server.gateway.dialects.context import GatewayContext
from mlx_server.gateway.errors import BadRequest, NotFound, Unavailable, quoted
from mlx_server.gateway.json_text import JsonResponse
from mlx_server.gateway.kept_answers.keeper import AnswerKeeper
from mlx_server.gateway.kept_answers.routes import first_frame_of
from mlx_server.gateway.peers.mirrored import MirrorBatch, MirroredAnswers
from mlx_server.gateway.peers.passed_on import DIGEST, has_begun, model_of, unpacked
from vestal.web.guard import bearer_of
from vestal.web.http_error import HttpError

NEWS_S = 2.0
"""How long this gateway waits for the first event or the failure of an answer before it confirms to the other
machine that it has taken the answer over. The client receives nothing meanwhile."""
MAX_BATCH_BYTES = 64 * 1024 * 1024
_batch_decoder = msgspec.msgpack.Decoder(MirrorBatch)
EVENTS_BYTES = 64 * 1024 * 1024
"""How many bytes the events of an answer may take, in addition to the body of its request."""


def router(
    context: GatewayContext, keeper: AnswerKeeper, mirrored: MirroredAnswers, paths: Container[str]
) -> APIRouter:
    """Return the routes that gateways on other machines call. Such a gateway can hand over an answer, which
    `keeper` then continues here. It can cancel this answer, and read the records (the request and the events
    so far) that this gateway's answer log holds of it. It can also send copies of the records of answers that
    run on its own machine; `mirrored` stores these copies in case that machine dies. `paths` are the paths of
    the HTTP API whose answers can be handed over.
    """
    routes = APIRouter(prefix="/v1/streams", include_in_schema=False)  # the API document is for clients
    mlx = context.config.mlx

    @routes.put("/{answer_id}", status_code=201)
    async def take_over(http: Request, answer_id: str) -> Response:
        check_key(http, mlx.peer_key)
        data = b"".join(await receive(http, mlx.max_body_bytes + EVENTS_BYTES))
        if keeper.has(answer_id):
            return JsonResponse({"id": answer_id}, 200)
        records = await asyncio.to_thread(unpacked, data, answer_id, paths)
        await _check_model(context, records, http.headers.get(DIGEST, ""))
        if keeper.has(answer_id):  # it may have come from elsewhere meanwhile, to be taken over once
            return JsonResponse({"id": answer_id}, 200)
        if refusal := context.dispatcher.refusing or context.dispatcher.engine_too_late():
            raise refusal
        await _begin(keeper, records)
        context.emit("request_taken_over", "another machine cannot serve it", id=answer_id)
        return JsonResponse({"id": answer_id}, 201)

    @routes.delete("/{answer_id}")
    async def cancel(http: Request, answer_id: str) -> Response:
        check_key(http, mlx.peer_key)
        if not context.dispatcher.cancel(answer_id):
            raise NotFound("not_found", f"The answer {quoted(answer_id)} does not run here.")
        context.emit("request_cancelled", "asked for by the machine that its client is at", id=answer_id)
        return JsonResponse({"id": answer_id, "state": "cancelled"})

    @routes.post("/mirror")
    async def receive_mirrored(http: Request) -> Response:
        check_key(http, mlx.peer_key)
        data = b"".join(await receive(http, MAX_BATCH_BYTES))
        try:
            batch = _batch_decoder.decode(data)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise BadRequest("invalid_request", "The body is not a batch of mirrored records.") from error
        have = {answer_id for answer_id in batch.sizes if keeper.has(answer_id)}
        address = http.client.host if http.client else ""
        batch.origin = f"{address} {batch.origin[:200]}"
        reply = mirrored.receive(batch, have, context.clock.now())
        return JsonResponse({"want": reply.want})

    @routes.get("/{answer_id}/records")
    async def read_records(http: Request, answer_id: str) -> Response:
        check_key(http, mlx.peer_key)
        offset = first_frame_of(http)
        data = await keeper.log.data(answer_id)
        if data is None:
            keeper.check_logged(answer_id)
        return Response((data or b"")[offset:], media_type="application/octet-stream")

    return routes


def check_key(http: Request, peer_key: str | None) -> None:
    """Raise HttpError if this gateway has no key for peers, or if the request does not contain that key."""
    if not peer_key:
        message = "This gateway takes nothing over from others; set mlx.peer_key to the key that they share."
        raise HttpError("forbidden", message)
    given = bearer_of(http.headers.raw)
    if given is None or not hmac.compare_digest(given, peer_key.encode()):
        raise HttpError("unauthorized", "Send `Authorization: Bearer <key>`, with the key of mlx.peer_key.")


async def _check_model(context: GatewayContext, records: Sequence[Record], digest: str) -> None:
    """Raise HttpError if the model that a passed-on request names is not installed here, or is not the model
    that generated the beginning of the answer.

    `records` are the answer's log records from the other machine; the first one is the request. `digest` is
    the digest of that machine's model. It is not compared if it is empty or nothing was generated yet.
    """
    head = records[0]
    assert isinstance(head, Accepted)
    name = model_of(head.body)
    model = await context.installed_models.get(name)
    if digest and has_begun(records) and digest != model.digest:
        message = f"Model {quoted(name)} is not the same here: its files or its settings differ."
        raise NotFound("model_not_found", message, model=name)


async def _begin(keeper: AnswerKeeper, records: Sequence[Record]) -> None:
    """Continue on this machine an answer that another machine has passed on, and wait up to NEWS_S seconds
    for its first new event. `records` are the answer's log records from that machine. If the answer fails in
    this time, delete it and raise the error: the HttpError with which it failed, or Unavailable.
    """
    answer = await keeper.take_over(records)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(NEWS_S):
            await answer.has_news.wait()
    if answer.failure is not None:
        keeper.forget(answer.id)
        raise answer.failure
    if (error := answer.rendering.error) is not None:
        keeper.forget(answer.id)
        if isinstance(error, HttpError):
            raise error
        raise Unavailable("engine_unavailable", "This gateway failed on the request; its log has more.")
