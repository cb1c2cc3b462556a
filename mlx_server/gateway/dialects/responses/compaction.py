"""Serve POST /v1/responses/compact: reduce a long conversation to its messages from the system, the developer
and the user, and a summary by the model.

The client sends the result as the input of its next request. The summary is in the `encrypted_content` of an
item of type `compaction`, which `messages` decodes.
"""

from __future__ import annotations

from functools import partial

from starlette.requests import Request

from mlx_server.gateway.dialects.chat.images import image_reader, with_images
from mlx_server.gateway.dialects.responses import DIALECT
from mlx_server.gateway.dialects.responses.creation import Responses, new_id
from mlx_server.gateway.dialects.responses.input_items import Item, read_input
from mlx_server.gateway.dialects.responses.messages import chat_messages, opaque
from mlx_server.gateway.dialects.responses.resource import Resource, usage
from mlx_server.gateway.dialects.responses.schema import CompactBody
from mlx_server.gateway.dialects.responses.stored import items_in
from mlx_server.gateway.dialects.streaming import cancel_on_disconnect
from mlx_server.gateway.dialects.translation import translated
from mlx_server.gateway.errors import BadRequest
from mlx_server.gateway.images.reader import ImageReader, text_of_content
from mlx_server.gateway.requests.model_requests import GenerationRequest
from mlx_server.gateway.requests.sendable import sendable
from mlx_server.model_store import ModelEntry
from mlx_server.protocol import Sampling

MAX_SUMMARY_TOKENS, LEAST_SUMMARY_TOKENS = 1024, 64
CHARS_PER_TOKEN = 4
"""A rough estimate, by which the summary is kept from being longer than the conversation."""
TASK = (
    "Summarize the conversation so far for someone who has to continue it: what the user wants, what was "
    "decided and done, names, numbers and results that matter, and what is still open. "
    "Write only the summary."
)
KEPT_ROLES = ("system", "developer", "user")


async def compact(responses: Responses, body: CompactBody, http: Request) -> tuple[Resource, str]:
    """Return the compacted conversation, and the id of the request that generated its summary.

    Raises HttpError if the request is refused or fails, and ClientDisconnected if the client leaves.
    """
    context = responses.context
    entry = await context.installed_models.get(body.model, "generate")
    body = await with_images(context, http, entry, body)
    images = image_reader(context, entry, body.model)
    references = await responses.earlier.references(body, http)
    seed = context.draw_seed(http)
    make_id = partial(new_id, context.random_for(http))

    def translate() -> tuple[GenerationRequest, list[Item]]:
        earlier = items_in(references.earlier)
        items = [*earlier, *read_input(body.input, earlier, make_id, references.item).items]
        if not items:
            raise BadRequest("invalid_request", "input: there is no conversation to compact", param="input")
        return _summary_request(body, entry, seed, items, images), items

    request, items = await translated(http, translate, added_bytes=references.size_bytes)
    answers = context.generate([sendable(request)], http, DIALECT)
    ((answer, done),) = await cancel_on_disconnect(http, answers, answers.whole())
    summary = {"type": "compaction", "id": make_id("cmp"), "encrypted_content": opaque(answer.text.strip())}
    compacted = {
        "id": make_id("resp"),
        "object": "response.compaction",
        "created_at": int(context.clock.wall()),
        "output": [*(item for item in items if _is_kept(item)), summary],
        "usage": usage(done.usage),
    }
    return compacted, answers.id


def _summary_request(
    body: CompactBody, entry: ModelEntry, seed: int, items: list[Item], images: ImageReader
) -> GenerationRequest:
    task = f"{TASK}\n\n{body.instructions}" if body.instructions else TASK
    conversation = chat_messages(None, items, images)
    length = sum(len(text_of_content(message["content"])) for message in conversation)
    return GenerationRequest(
        model=entry.loaded_as,
        requested_model=entry.name if entry.name != entry.loaded_as else "",
        kind="chat",
        messages=(*conversation, {"role": "user", "content": task}),
        images=images.files,
        think=False,
        sampling=Sampling(seed=seed, temperature=0.0),
        max_tokens=min(MAX_SUMMARY_TOKENS, max(LEAST_SUMMARY_TOKENS, length // CHARS_PER_TOKEN)),
        truncate=True,
        shift=True,
    )


def _is_kept(item: Item) -> bool:
    return item["type"] == "message" and item["role"] in KEPT_ROLES
