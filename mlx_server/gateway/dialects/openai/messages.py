"""The messages of a chat completion, and their conversion to the form that chat templates expect. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from mlx_server.gateway.dialects.bodies import Body, ListOf
from mlx_server.gateway.dialects.chat.content_parts import file_text, named_file, placeholder
from mlx_server.gateway.dialects.chat.history import Role, chat_history, without_volatile_headers
from mlx_server.gateway.dialects.chat.tool_choice import TEXT_INPUT
from mlx_server.gateway.dialects.tools import check_argument_texts, past_arguments
from mlx_server.gateway.errors import BadRequest
from mlx_server.gateway.images.reader import Content, ImageReader, joined

TEXT_PARTS = ("text", "input_text", "output_text")
THOUGHT_PARTS = ("thinking", "reasoning")
IMAGE_PARTS = ("image_url", "input_image")


class File(Body):
    filename: str | None = None
    file_data: str | None = None


class ImageUrl(Body):
    """An image, given by a data URL, or by an http or https URL if the server fetches images
    (`mlx.image_urls`). `detail` is ignored, because the model's image processor decides the resolution.
    """

    url: str | None = None


class ContentPart(Body):
    """One part of a message's content. `type` decides which other field is read: a part of type `text`,
    `refusal`, `file` or `image_url` has its content in the field of the same name. Thoughts (type `thinking`
    or `reasoning`) are in `thinking`, `reasoning` or `text`. Mistral's clients send `thinking` as a list of
    parts.
    """

    type: str
    text: str | None = None
    refusal: str | None = None
    thinking: str | ListOf[ContentPart] | None = None
    reasoning: str | None = None
    file: File | None = None
    image_url: str | ImageUrl | None = None

    @property
    def image_source(self) -> str | None:
        return self.image_url.url if isinstance(self.image_url, ImageUrl) else self.image_url

    @property
    def as_text(self) -> str | None:
        """Return the text in the part, which is empty for thoughts; None if the part is not text, such as an
        image.
        """
        if self.type in TEXT_PARTS:
            return self.text or ""
        if self.type == "refusal":
            return self.refusal or ""
        if self.type in THOUGHT_PARTS:
            return ""
        text = file_text(self.file.file_data) if self.type == "file" and self.file else None
        return None if text is None or self.file is None else named_file(self.file.filename, text)

    @property
    def thoughts(self) -> str:
        if self.type not in THOUGHT_PARTS:
            return ""
        if isinstance(self.thinking, list):
            return "".join(part.text or "" for part in self.thinking)
        return self.thinking or self.reasoning or self.text or ""


class FunctionCall(Body):
    name: str
    arguments: str | dict[str, Any] | None = None

    def as_call(self, call_id: str | None) -> dict[str, Any]:
        """Return the call in the form that chat templates expect. `call_id` is the call's id; None if it has
        none, as in OpenAI's older form.
        """
        function = {"name": self.name, "arguments": past_arguments(self.arguments)}
        call = {"type": "function", "function": function}
        return call | ({"id": call_id} if call_id else {})


class CustomCall(Body):
    name: str
    input: str


class ToolCall(Body):
    id: str | None = None
    type: str | None = None
    function: FunctionCall | None = None
    custom: CustomCall | None = None

    def as_dict(self, field: str) -> dict[str, Any]:
        """Return the call in the form that chat templates expect. `field` is the call's path in the body.
        Raises BadRequest if the call names no function.
        """
        if self.function is not None:
            return self.function.as_call(self.id)
        if self.custom is not None:
            called = FunctionCall(name=self.custom.name, arguments={TEXT_INPUT: self.custom.input})
            return called.as_call(self.id)
        raise BadRequest("invalid_request", f"{field}.function: is missing")


class Message(Body):
    """A message of a chat. `function_call` and the role `function` are OpenAI's older form of tool calls.
    `reasoning` is the name that Ollama and OpenRouter use for `reasoning_content`.
    """

    role: Role
    content: str | ListOf[ContentPart] | None = None
    refusal: str | None = None
    name: str | None = None
    tool_calls: ListOf[ToolCall] | None = None
    function_call: FunctionCall | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None

    @property
    def parts(self) -> Sequence[ContentPart]:
        return self.content if isinstance(self.content, list) else ()

    def unreadable_parts(self, images: ImageReader) -> list[str]:
        """Return the types of the message's parts that the model cannot read: parts without text, except
        images if the model reads images in messages of this role.
        """
        seen = IMAGE_PARTS if images.reads_in(self.role) else ()
        return [part.type for part in self.parts if part.as_text is None and part.type not in seen]

    def as_dict(self, field: str, images: ImageReader) -> dict[str, Any]:
        """Return the message in the form that chat templates expect. `field` is the message's path in the
        body. Raises BadRequest if a tool call or an image cannot be used.
        """
        message: dict[str, Any] = {"role": self.role, "content": self._content(field, images)}
        thoughts = self.reasoning_content or self.reasoning or "".join(part.thoughts for part in self.parts)
        calls = [call.as_dict(f"{field}.tool_calls.{n}") for n, call in enumerate(self.tool_calls or ())]
        if self.function_call and not calls:
            calls = [self.function_call.as_call(None)]
        optional = {
            "name": self.name,
            "reasoning_content": thoughts,
            "tool_calls": calls,
            "tool_call_id": self.tool_call_id,
        }
        return message | {key: value for key, value in optional.items() if value}

    def _content(self, field: str, images: ImageReader) -> Content:
        if not isinstance(self.content, list):
            return self.content or self.refusal or ""
        parts: list[str | dict[str, Any]] = []
        for number, part in enumerate(self.content):
            if part.type in IMAGE_PARTS and images.reads_in(self.role):
                parts.append(images.take(f"{field}.content.{number}.image_url", part.image_source))
                continue
            text = placeholder(part.type) if part.as_text is None else part.as_text
            parts.append(without_volatile_headers(text) if self.role == "system" else text)
        return joined(parts)


def template_messages(messages: Sequence[Message], images: ImageReader) -> tuple[dict[str, Any], ...]:
    """Return the messages in the form that chat templates expect. Their images are added to `images`.

    Raises BadRequest if a past call names no function, if an image cannot be used, or if the last user
    message has a part that the model cannot read. Such a part in an earlier message or in a tool result is
    replaced by a sentence instead, because refusing it would refuse every later turn of the conversation too.
    """
    check_argument_texts(_argument_texts(messages))
    questions = (message for message in reversed(messages) if message.role == "user")
    if (question := next(questions, None)) and (parts := question.unreadable_parts(images)):
        raise images.refusal("messages.content", parts[0])
    return chat_history(message.as_dict(f"messages.{n}", images) for n, message in enumerate(messages))


def replaced_parts(messages: Sequence[Message], images: ImageReader) -> list[str]:
    """Return the types of the content parts that the model cannot read and that `template_messages` replaces
    by a sentence, one entry for each part. The gateway logs them.
    """
    return [part for message in messages for part in message.unreadable_parts(images)]


def _argument_texts(messages: Sequence[Message]) -> Iterator[str]:
    for message in messages:
        called = [call.function for call in message.tool_calls or ()]
        for function in (*called, message.function_call):
            if function is not None and isinstance(function.arguments, str):
                yield function.arguments
