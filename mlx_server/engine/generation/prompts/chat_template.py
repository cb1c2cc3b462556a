"""Render conversations, with tools and images, by a model's chat template, and find out what the template
needs.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedTokenizerBase
from transformers.utils import chat_template_utils

from mlx_server.engine.errors import RequestError
from mlx_server.engine.generation.prompts.conversation import TemplateNeeds
from mlx_server.engine.generation.prompts.template_probe import TemplateProbe
from mlx_server.engine.generation.prompts.templates.limits import (
    TemplateLimitExceeded,
    TemplateProcessDied,
)
from mlx_server.engine.generation.prompts.templates.process import TemplateProcess
from mlx_server.engine.generation.prompts.templates.remote_render import rendered_by
from mlx_server.engine.vision.pictures import with_markers, without_numbers

if TYPE_CHECKING:
    from mlx_server.engine.vision.pictures import Picture


def _reserved_variables() -> frozenset[str]:
    """Return the names that clients cannot use as template variables, because they are parameters of
    transformers' rendering functions.
    """
    functions = (PreTrainedTokenizerBase.apply_chat_template, chat_template_utils.render_jinja_template)
    names = {name for function in functions for name in inspect.signature(function).parameters}
    return frozenset(names - {"documents"} | {"messages", "template_kwargs"})


RESERVED_VARIABLES = _reserved_variables()


@dataclass(frozen=True)
class ChatTemplate:
    """The chat template of a model's tokenizer.

    `process` renders the template, in an operating-system process of its own. It is None if chats are
    rendered by Python code instead, either of mlx-lm or of the tokenizer's class. `renders_to_tokens` is True
    if the tokenizer's class renders chats; its code then returns token ids instead of text. `time_s` is the
    time whose date a template writes, in seconds since 1970; None for the present.

    The rendering methods have a parameter `arguments`, a dictionary. With the key `chat_template`, it can
    pass another template, which is then rendered in place of the model's own.
    """

    tokenizer: Any
    process: TemplateProcess | None
    renders_to_tokens: bool = False
    time_s: float | None = None

    def render(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, arguments: dict[str, Any]
    ) -> str | Sequence[int]:
        """Return the text of a chat; or its token ids, if the model's tokenizer class encodes chats itself
        (`renders_to_tokens`).

        `arguments` are options and variables for the template. Raises TemplateError if the template refuses
        the chat or exceeds a limit, or if the process that renders it dies. A tokenizer class may raise any
        exception.
        """
        if self.process is None:
            tokenize = self.renders_to_tokens
            rendered = self.tokenizer.apply_chat_template(
                messages, tokenize=tokenize, tools=tools, **arguments
            )
        else:
            with rendered_by(self.process, self.time_s):
                rendered = self.tokenizer.apply_chat_template(
                    messages, tokenize=False, tools=tools, **arguments
                )
        return rendered if isinstance(rendered, str) else list(rendered)

    def render_with_images(
        self,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]] | None,
        arguments: dict[str, Any],
        pictures: Sequence[Picture],
        marker: str,
    ) -> str:
        """Return the text of a chat with images. `arguments` are options and variables for the template. The
        template writes the text `marker` in the place of each image. Each marker is replaced by the text of
        the tokens that represent the image; `pictures` are the images in the order of their markers.

        If the template does not understand content parts, the chat is rendered again with markers written
        into the messages. Raises RequestError if the number of markers is not the number of pictures, and
        whatever the template raises.
        """
        objection: Exception | None = None
        for shaped in (without_numbers(messages), with_markers(messages, marker)):
            try:
                rendered = self.render(shaped, tools, arguments)
            except (TemplateLimitExceeded, TemplateProcessDied):
                raise
            except Exception as error:  # a template is a program: it may raise anything
                objection = error
                continue
            pieces = rendered.split(marker) if isinstance(rendered, str) else []
            if len(pieces) == len(pictures) + 1:
                texts = [*(picture.text for picture in pictures), ""]
                return "".join(piece + text for piece, text in zip(pieces, texts, strict=True))
            objection = RequestError(
                "invalid_request",
                f"The chat template of the model has places for {max(len(pieces) - 1, 0)} images, and "
                f"{len(pictures)} were sent; if a text contains {marker}, leave it out.",
            )
        assert objection is not None
        raise objection

    def needs(self, chat_template: str | None, call_markers: tuple[str, str]) -> TemplateNeeds:
        """Return what `chat_template` (if None, the model's own template) requires of a conversation, which
        is found out by rendering small conversations. `call_markers` are the texts that the model writes
        before and after its calls.
        """
        own = {} if chat_template is None else {"chat_template": chat_template}

        def render(messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> str:
            continues = messages[-1].get("role") == "assistant"
            options = {"add_generation_prompt": not continues, "continue_final_message": continues}
            rendered = self.render(messages, tools, {**options, **own})
            return rendered if isinstance(rendered, str) else str(self.tokenizer.decode(rendered))

        return TemplateProbe(render, call_markers).needs(self.uses_tools(chat_template))

    def uses_tools(self, chat_template: str | None = None) -> bool:
        """Return True if `chat_template` (if None, the model's own template) seems to render the tools of a
        request, because it mentions them.
        """
        if chat_template is not None:
            return "tools" in chat_template
        template = str(getattr(self.tokenizer, "chat_template", ""))
        return bool(self.tokenizer.has_tool_calling) or "tools" in template
