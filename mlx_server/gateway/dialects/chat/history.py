"""Normalize the messages of every dialect for a chat template. Pure.

Roles get the names that templates use. Thoughts that a client sends as a message of their own become part of
the assistant's message that follows. Images in tool results move to the next message of the user. From the
beginning of a system message, header lines are removed that change with each conversation and would defeat
the prompt cache.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

from pydantic import AfterValidator

from mlx_server.gateway.errors import BadRequest
from mlx_server.gateway.images.reader import joined, parts_of

Message = dict[str, Any]
"""A message in the form that chat templates expect: `role`, `content`, and further fields for some roles."""

ROLES = ("system", "user", "assistant", "tool", "thinking")
_SAME_ROLES = {
    "developer": "system",
    "ai": "assistant",
    "model": "assistant",
    "function": "tool",
    "reasoning": "thinking",
}
_VOLATILE_HEADERS = re.compile(r"\A(?:[ \t\r\n]*x-anthropic-[a-z0-9-]+:[^\n]*(?:\n|\Z))+", re.IGNORECASE)


def normalized_role(given: str) -> str:
    """Return a role under the name that chat templates use: `user` for `User`, `system` for `developer`.

    An unknown role becomes `user`, because Ollama accepts any role, but a template might refuse an unknown
    one.
    """
    role = given.strip().lower()
    role = _SAME_ROLES.get(role, role)
    return role if role in ROLES else "user"


Role = Annotated[str, AfterValidator(normalized_role)]
"""The field `role` of a message. langchain4j writes `USER`, Continue sends `thinking`."""


def chat_history(messages: Iterable[Message]) -> tuple[Message, ...]:
    """Return the messages for the template, in their order.

    A system message stays where the client put it, because moving it to the front would change the beginning
    of the prompt, so that the prompt cache would find nothing. A system message loses the header lines at its
    beginning that `without_volatile_headers` removes; if it consists only of such lines, it is dropped. A
    message of role `thinking` becomes the thoughts of the assistant's message that follows it; without such a
    message it is dropped, since thoughts alone are not a turn. Images in tool results move into the user's
    message that follows these results; if none follows directly, a user's message with only the images is
    inserted there. Raises BadRequest if there are only thoughts.
    """
    history: list[Message] = []
    thoughts, only_thoughts = "", False
    for message in messages:
        role, content = message["role"], message["content"]
        if role == "thinking":
            thoughts, only_thoughts = thoughts + content, not history
            continue
        if role == "assistant" and thoughts and not message.get("reasoning_content"):
            history.append(message | {"reasoning_content": thoughts})
        elif role == "system" and content:
            if kept := without_volatile_headers(content):
                history.append(message | {"content": kept})
        else:
            history.append(message)
        thoughts = ""
    if only_thoughts and not history:
        raise BadRequest("empty_prompt", "messages: holds thinking only; send a message of the user")
    return tuple(_images_after_tools(history))


def _images_after_tools(messages: Iterable[Message]) -> Iterator[Message]:
    """Yield the messages, with the images of tool results moved to the next user message.

    Few templates accept images anywhere else. If no user message follows the results, a new one is added that
    holds only the images.
    """
    images: list[Message] = []
    for message in messages:
        content = message["content"]
        if message["role"] == "tool":
            if isinstance(content, list):
                images += [part for part in content if part["type"] == "image"]
                texts = (part["text"] if part["type"] == "text" else IMAGE_BELOW for part in content)
                yield message | {"content": "".join(texts)}
            else:
                yield message
            continue
        if images and message["role"] == "user":
            yield message | {"content": joined([*images, *parts_of(content)])}
        elif images:
            yield {"role": "user", "content": images}
            yield message
        else:
            yield message
        images = []
    if images:
        yield {"role": "user", "content": images}


IMAGE_BELOW = "\n[The image that stood here follows below.]\n"
"""The sentence that replaces an image in a tool result."""


def without_volatile_headers(text: str) -> str:
    """Return a system prompt without the header lines at its beginning that change with each conversation.

    Claude Code's first system block is `x-anthropic-billing-header: cc_version=…; cch=…`, which means nothing
    to a model. With this line, no prompt would begin like an earlier one, and the prompt cache would find
    nothing (18 s instead of 1 s for 1,500 tokens).
    """
    return _VOLATILE_HEADERS.sub("", text, count=1)
