"""Anthropic's messages and content blocks, and their conversion to the form that chat templates expect.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from mlx_server.gateway.dialects.bodies import Body, ListOf
from mlx_server.gateway.dialects.chat.content_parts import file_text, named_file, placeholder
from mlx_server.gateway.dialects.chat.history import Role, chat_history, without_volatile_headers
from mlx_server.gateway.images.reader import Content, ImageReader, joined, parts_of, text_of_content


class Source(Body):
    """The content of a document or an image, or the URL of it."""

    type: str | None = None
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    content: str | ListOf[Block] | None = None


class Block(Body):
    """One block of a message's content. A block of an unknown type is accepted, and left out of the
    prompt.
    """

    type: str
    text: str | None = None
    thinking: str | None = None
    id: str | None = None
    name: str | None = None
    title: str | None = None
    input: dict[str, Any] | None = None
    tool_use_id: str | None = None
    is_error: bool | None = None
    source: str | Source | None = None
    content: str | ListOf[Block] | dict[str, Any] | None = None

    @property
    def as_text(self) -> str | None:
        """Return the text of the block; None if the block has no text that a text model can read."""
        match self.type:
            case "text":
                return self.text or ""
            case "document":
                text = self._document_text
                return None if text is None else named_file(self.title, text)
            case "search_result":
                return f"\n[{self.title or 'A search result'}:]\n{text_of(self.blocks)}\n"
        return None

    @property
    def blocks(self) -> Sequence[Block]:
        return self.content if isinstance(self.content, list) else ()

    @property
    def image_source(self) -> str | None:
        """Return the image's base64, data URL or URL; None if the image is a file in Anthropic's files
        API.
        """
        source = self.source
        return source.data or source.url if isinstance(source, Source) else source

    @property
    def _document_text(self) -> str | None:
        source = self.source
        if not isinstance(source, Source):
            return None
        if source.type == "text":
            return source.data or ""
        if source.type == "content":
            return text_of(source.content)
        return file_text(source.data) if source.type == "base64" else None


SILENT_TYPES = ("thinking", "redacted_thinking", "tool_use", "tool_result", "tool_reference")
"""Types of blocks that are not part of a message's text, without a loss: each of them reaches the template in
another way or is not needed."""
UNREADABLE_TYPES = ("image", "document")


class Message(Body):
    """A message of a chat. A system message may stand between others (Claude Code lists its agents in
    one).
    """

    role: Role
    content: str | ListOf[Block]

    @property
    def blocks(self) -> Sequence[Block]:
        return self.content if isinstance(self.content, list) else ()

    def unreadable_blocks(self, images: ImageReader) -> list[str]:
        """Return the types of the message's blocks that the model cannot read. Blocks inside tool results do
        not count. `images` says whether the model reads images in messages of this role.
        """
        return [
            block.type
            for block in self.blocks
            if _is_unreadable(block) and not _is_seen(block, self.role, images)
        ]

    def as_dicts(self, field: str, images: ImageReader) -> Iterator[dict[str, Any]]:
        """Yield the message in the form that chat templates expect. `field` is the message's path in the
        body.

        Each tool result becomes a message of its own, before the message's text. Raises BadRequest if an
        image cannot be used.
        """
        if isinstance(self.content, str):
            yield {"role": self.role, "content": self.content}
            return
        results = [(n, block) for n, block in enumerate(self.content) if block.type == "tool_result"]
        for number, block in results:
            result = _result(block, f"{field}.content.{number}", images)
            yield {"role": "tool", "content": result, "tool_call_id": block.tool_use_id or ""}
        if self.role == "system":
            content: Content = system_text(self.content)
        else:
            content = _content(self.content, self.role, f"{field}.content", images)
        message: dict[str, Any] = {"role": self.role, "content": content}
        if thoughts := "".join(block.thinking or "" for block in self.content if block.type == "thinking"):
            message["reasoning_content"] = thoughts
        if calls := [_call(block) for block in self.content if block.type == "tool_use"]:
            message["tool_calls"] = calls
        if content or calls or not results:
            yield message


def template_messages(
    system: str | list[Block] | None, messages: Sequence[Message], images: ImageReader
) -> tuple[dict[str, Any], ...]:
    """Return the messages in the form that chat templates expect. Their images are added to `images`.

    Raises BadRequest if an image cannot be used, or if the last user message has a block that the model
    cannot read. Such a block in an earlier message or in a tool result is replaced by a sentence instead,
    because refusing it would refuse every later turn of the conversation too.
    """
    questions = (message for message in reversed(messages) if message.role == "user")
    if (question := next(questions, None)) and (blocks := question.unreadable_blocks(images)):
        raise images.refusal("messages.content", blocks[0])
    first = system_text(system)
    return chat_history(
        [
            *([{"role": "system", "content": first}] if first else []),
            *(
                each
                for n, message in enumerate(messages)
                for each in message.as_dicts(f"messages.{n}", images)
            ),
        ]
    )


def replaced_blocks(messages: Sequence[Message], images: ImageReader) -> list[str]:
    """Return the types of the content blocks that `template_messages` leaves out of the prompt or replaces by
    a sentence, because the model cannot read them: one entry for each block, also for blocks inside tool
    results. `images` says whether the model reads images. The gateway logs the types.
    """
    found = []
    for message in messages:
        for block in message.blocks:
            inner = block.blocks if block.type == "tool_result" else ()
            found += [
                each.type
                for each in (block, *inner)
                if each.as_text is None and _is_lost(each) and not _is_seen(each, message.role, images)
            ]
    return found


def system_text(content: str | list[Block] | None) -> str:
    """Return the text of a system prompt; an empty text for None. Header lines at the beginning of each
    block, such as Claude Code's `x-anthropic-billing-header: …`, are left out: they change with each
    conversation, so that the prompt cache would find no common beginning.
    """
    if not isinstance(content, list):
        return without_volatile_headers(content or "")
    return "".join(without_volatile_headers(block.as_text or "") for block in content)


def text_of(content: str | Sequence[Block] | None) -> str:
    """Return the text of a message's content, with a sentence for each block that a text model cannot
    read.
    """
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(
        placeholder(block.type) if _is_unreadable(block) else block.as_text or "" for block in content
    )


def _content(blocks: Sequence[Block], role: str, field: str, images: ImageReader) -> Content:
    """Return the content `blocks` of a message with this role in the form for chat templates: a text, or
    parts if the model sees an image among the blocks. `field` is the path of `blocks` in the body. Raises
    BadRequest if an image cannot be used.
    """
    parts: list[str | dict[str, Any]] = []
    for number, block in enumerate(blocks):
        if _is_seen(block, role, images):
            parts.append(images.take(f"{field}.{number}.source", block.image_source))
        else:
            parts.append(placeholder(block.type) if _is_unreadable(block) else block.as_text or "")
    return joined(parts)


def _is_seen(block: Block, role: str, images: ImageReader) -> bool:
    return block.type == "image" and images.reads_in(role)


def _is_unreadable(block: Block) -> bool:
    return block.type in UNREADABLE_TYPES and block.as_text is None


def _is_lost(block: Block) -> bool:
    return block.type not in SILENT_TYPES


def _result(block: Block, field: str, images: ImageReader) -> Content:
    """Return the content of the tool result in `block`. `field` is the block's path in the body, for error
    messages, and `images` collects the result's images. A failed result gets the prefix "Error: " unless its
    beginning mentions an error, because templates have no field for failures. Raises BadRequest if an image
    cannot be used.
    """
    if isinstance(block.content, str):
        content: Content = block.content
    else:
        content = _content(block.blocks, "tool", f"{field}.content", images)
    if block.is_error and "error" not in text_of_content(content)[:40].lower():
        return joined(["Error: ", *parts_of(content)])
    return content


def _call(block: Block) -> dict[str, Any]:
    function = {"name": block.name or "", "arguments": block.input or {}}
    return {"id": block.id or "", "type": "function", "function": function}
