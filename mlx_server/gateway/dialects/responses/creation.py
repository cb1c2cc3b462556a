"""Create a response from a request body: find the earlier responses and items that the body refers to,
translate the body, and submit the generation request to the engine.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from starlette.requests import HTTPConnection

from mlx_server import protocol
from mlx_server.gateway.dialects.body_budget import BodyShare, share_of
from mlx_server.gateway.dialects.chat.images import image_reader, with_images
from mlx_server.gateway.dialects.context import GatewayContext
from mlx_server.gateway.dialects.responses import DIALECT
from mlx_server.gateway.dialects.responses.earlier_responses import PATH, EarlierResponses, Find
from mlx_server.gateway.dialects.responses.input_items import InputItems, Item, read_input
from mlx_server.gateway.dialects.responses.messages import chat_messages, unreadable_parts
from mlx_server.gateway.dialects.responses.offered_tools import OfferedTools, offered_tools
from mlx_server.gateway.dialects.responses.references import References, input_ids
from mlx_server.gateway.dialects.responses.resource import new_response
from mlx_server.gateway.dialects.responses.running import run_of
from mlx_server.gateway.dialects.responses.schema import CreateBody
from mlx_server.gateway.dialects.responses.stored import (
    MemoryResponseStore,
    ResponseStore,
    StoredResponse,
    items_in,
    unknown_response,
)
from mlx_server.gateway.dialects.translation import translated
from mlx_server.gateway.errors import BadRequest
from mlx_server.gateway.images.reader import ImageReader
from mlx_server.gateway.json_text import json_bytes
from mlx_server.gateway.kept_answers.kept_answer import KeptAnswer, keep, kept_answer_of
from mlx_server.gateway.kept_answers.received_body import ReceivedBody
from mlx_server.gateway.requests.model_presets import with_preset
from mlx_server.gateway.requests.model_requests import GenerationRequest
from mlx_server.gateway.requests.sendable import SendableRequest, sendable

MakeId = Callable[[str], str]
"""A function that returns a new id that begins with the given prefix."""


def new_id(source: random.Random, prefix: str) -> str:
    """Return a new random id that begins with `prefix`; `source` yields the random bits."""
    return f"{prefix}_{source.getrandbits(128):032x}"


def _new_random_id(prefix: str) -> str:
    return new_id(random.SystemRandom(), prefix)


@dataclass(frozen=True)
class Translated:
    """The translation of a request body.

    `input` holds the checked items of the body's input, and `items` the same items as a JSON list. `offered`
    are the tools. `sendable` is `request`, encoded for the engine. `images` holds the images in the messages.
    """

    input: InputItems
    items: bytes
    offered: OfferedTools
    request: GenerationRequest
    sendable: SendableRequest
    images: ImageReader


class Responses:
    """Creates the responses of one gateway. Keeps each one in `store`, unless the request's body sets its
    field `store` to false. By default, `store` is a new store in memory, which keeps ended responses for
    `mlx.keep_answers_s` seconds.
    """

    def __init__(self, context: GatewayContext, store: ResponseStore | None = None) -> None:
        self.context = context
        config = context.config.mlx
        self.store = store or MemoryResponseStore(config.keep_answers_s, context.clock.now)
        self.earlier = EarlierResponses(context, self.store)

    async def create(
        self, body: CreateBody, client: HTTPConnection, find: Find | None = None
    ) -> StoredResponse:
        """Start a response, and return it while it runs. Raises HttpError if the request is refused.

        `find` is called with the id of each earlier response that the body refers to, and returns that
        response, or None if it is unknown. By default, the response is looked up in the store in memory and
        in the answer log on disk.
        """
        references, means = await self._prepare(body, client, find)
        self._report_skipped(body, means)
        make_id = partial(new_id, self.context.random_for(client))
        kept = kept_answer_of(client.scope)
        response_id = f"resp_{kept.id}" if kept else make_id("resp")
        is_stored = body.wants_storing and self.store.keeps_any
        created_at = int(self.context.created_s(client))
        answers = self.context.generate(
            [means.sendable], client, DIALECT, body.end_user, outlives_client=bool(body.background)
        )
        shown = new_response(body, means.offered, response_id, created_at, is_stored=is_stored)
        run = run_of(body, means.offered, answers, shown, self.context.clock)
        response = StoredResponse(run)
        if is_stored or find:  # else no later request can continue it, and its input is not needed
            response.earlier, response.items = references.earlier, means.items
            response.input_ids = means.input.ids
        if is_stored:
            self.store.add(response)
        share = share_of(client).passed_on() if body.background else None
        run.start(lambda: self._ended(response, share, kept))
        return response

    async def found(self, response_id: str) -> StoredResponse:
        """Return the stored response with this id, from memory or from the answer log. Raises NotFound if
        there is no such response, and HttpError with status 503 if it cannot be read at present.
        """
        response = await self.earlier.find(response_id)
        if response is None:
            raise unknown_response(response_id)
        return response

    def turn_of(self, socket: HTTPConnection, body: CreateBody, written: ReceivedBody) -> HTTPConnection:
        """Return the connection to pass to `create` for one turn (a request and its response) that arrived
        over the WebSocket `socket`. If the response is to be stored, it is written to the answer log when it
        has ended, with `written`, the body of the request.
        """
        turn = HTTPConnection(dict(socket.scope))
        if body.wants_storing and self.store.keeps_any and self.context.keeper is not None:
            keep(turn.scope, self.context.keeper.with_connection(turn.scope, PATH, written))
        return turn

    def remove(self, response_id: str) -> None:
        """Delete a response from the store and from the answer log."""
        self.store.remove(response_id)
        if self.context.keeper is not None:
            self.context.keeper.forget(response_id.removeprefix("resp_"))

    def _ended(self, response: StoredResponse, share: BodyShare | None, kept: KeptAnswer | None) -> None:
        self.store.ended(response)
        if kept is not None and kept.elsewhere is not None:  # the response goes on at another gateway
            self.store.remove(response.id)
        if share is not None:
            share.give_back()

    async def count_request(self, body: CreateBody, client: HTTPConnection) -> SendableRequest:
        """Return a request that counts the tokens of the body's prompt. Raises HttpError if the body is
        refused.
        """
        _, means = await self._prepare(body, client)
        return sendable(replace(means.request, count_only=True))

    async def _prepare(
        self, body: CreateBody, client: HTTPConnection, find: Find | None = None
    ) -> tuple[References, Translated]:
        """Return what the body refers to, and the translated body. Raises HttpError if the body is refused.

        `find` is called with the id of each earlier response that the body refers to, and returns that
        response, or None if it is unknown. By default, the response is looked up in memory and in the answer
        log. `client` is the client's connection. Its ASGI scope holds the source of the request's random
        numbers, and the request's share of the memory limit for all request bodies. Images that the body
        names by URL count towards this share.
        """
        body.check()
        if body.background and not self.store.keeps_any:
            message = "background: no answer is kept here for later (mlx.keep_answers_s is 0)"
            raise BadRequest("invalid_request", message, param="background")
        model = await self.context.installed_models.get(body.model, "generate")
        body = await with_images(self.context, client, model, body)
        references = await self.earlier.references(body, client, find)
        kept = kept_answer_of(client.scope)
        translation = partial(
            translate,
            body,
            model.name,
            self.context.draw_seed(client),
            input_ids(kept.id) if kept else _new_random_id,
            references.earlier,
            references.item,
            partial(with_preset, model, body),
            image_reader(self.context, model, body.model),
        )
        return references, await translated(client, translation, added_bytes=references.size_bytes)

    def _report_skipped(self, body: CreateBody, means: Translated) -> None:
        skipped = {
            "tools": means.offered.skipped,
            "items": means.input.skipped,
            "parts": unreadable_parts(means.input.items, means.images),
        }
        self.context.report_skipped(DIALECT, body.model, skipped)


def translate(
    body: CreateBody,
    model: str,
    drawn_seed: int,
    make_id: MakeId = _new_random_id,
    earlier: tuple[bytes, ...] = (),
    stored_item: Callable[[str], Item | None] = lambda item_id: None,
    preset: Callable[[GenerationRequest], GenerationRequest] = lambda request: request,
    images: ImageReader | None = None,
) -> Translated:
    """Translate the body to a generation request. `model` is the model's canonical name. Raises BadRequest if
    the body cannot be used, NotFound if it refers to an unknown item, and TooLarge if the arguments of past
    tool calls have too many values. The function is pure, except that `make_id` may return random ids.

    `drawn_seed` is the seed of the sampling if the body's `seed` is missing or -1. `make_id` returns a new id
    that begins with the given prefix. `earlier` is the conversation that the body continues: for each of its
    responses, oldest first, a JSON list of the input items and one of the output items. `stored_item` takes
    the id of an item and returns the stored item, or None. `preset` adds the model's own settings to the
    request. `images` collects the images; if it is None, the model reads text only.
    """
    offered = offered_tools(body.tools, body.tool_choice)
    _check_json("tools", offered.shown)  # even if they are not offered, because the response shows them
    schema = body.answer_schema()
    _check_json("text.format.schema", schema)
    before = items_in(earlier)
    read = read_input(body.input, before, make_id, stored_item)
    items = (*before, *read.items)
    images = images or ImageReader(body.model)
    if not items:
        raise BadRequest("invalid_request", "input: holds nothing that a model here can read", param="input")
    messages = tuple(chat_messages(body.instructions, items, images))
    given = GenerationRequest(
        model=model,
        kind="chat",
        count_only=body.generate is False,
        messages=messages,
        images=images.files,
        tools=offered.functions,
        tool_choice="required" if offered.call_schema else "auto",
        allowed_calls=offered.allowed,
        think=body.thinks,
        template=body.template_variables(),
        json_schema=offered.call_schema or schema,
        top_logprobs=body.logprobs,
        sampling=body.sampling(drawn_seed),
        max_tokens=body.max_output_tokens,
        truncate=body.truncation == "auto",
        shift=body.truncation == "auto",
    )
    request = preset(given)
    return Translated(read, json_bytes(read.items), offered, request, sendable(request), images)


def _check_json(field: str, value: Any) -> None:
    """Raise BadRequest if `value` cannot be written as JSON, because the response object has to show it."""
    try:
        protocol.check_json(field, value)
    except protocol.ProtocolError as error:
        raise BadRequest("invalid_request", f"{error}.", param=field) from error
