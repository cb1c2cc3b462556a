"""Turn a `Generate` operation into the token ids of its prompt, with the model's own chat template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import msgspec

from mlx_server.engine.errors import RequestError
from mlx_server.engine.generation.prompts.chat_template import ChatTemplate
from mlx_server.engine.generation.prompts.chat_tokens import ChatTokens
from mlx_server.engine.generation.prompts.conversation import TemplateNeeds
from mlx_server.engine.generation.prompts.length_check import check_length, texts_of
from mlx_server.engine.generation.prompts.messages import check_nesting, normalize_messages
from mlx_server.engine.generation.prompts.templates.process import TemplateProcess
from mlx_server.engine.generation.prompts.text_tokens import TextTokens
from mlx_server.engine.generation.prompts.token_ids import check_client_ids, check_tokenizer_ids
from mlx_server.engine.prompt_cache.block import common_prefix_length
from mlx_server.engine.vision.pictures import PlacedPicture, image_order, number_images, place
from mlx_server.protocol import Generate

if TYPE_CHECKING:
    from mlx_server.engine.vision.pictures import Picture
    from mlx_server.engine.vision.processor import ImageReader

MAX_OTHER_TEMPLATES = 16
"""For how many templates that requests brought with them the needs are cached."""


@dataclass(frozen=True)
class PromptMaker:
    """Renders and tokenizes the prompts of one model. It does not use MLX. The MLX thread must not call it,
    because it takes up to seconds.

    `templates` is the process that renders chat templates; None if the model's chats are not rendered by a
    template. With `renders_to_tokens`, the tokenizer's class itself renders chats to token ids.
    `context_tokens` is the length of the model's context. `token_rows` is how many tokens the model has
    weights for; None if unknown. `call_markers` are the texts that the model writes before and after its tool
    calls. `needs` is what the model's template requires of a conversation, and `needs_of_others` caches the
    needs of templates that requests brought with them. `images` reads the images of requests; None if the
    model reads text only or its vision is not served, for the reason `no_images`.
    """

    tokenizer: Any
    templates: TemplateProcess | None
    context_tokens: int
    token_rows: int | None = None
    renders_to_tokens: bool = False
    call_markers: tuple[str, str] = ("<tool_call>", "</tool_call>")
    needs: TemplateNeeds = TemplateNeeds()
    needs_of_others: dict[str, TemplateNeeds] = field(default_factory=dict, compare=False)
    images: ImageReader | None = None
    no_images: str = "it reads text only"

    @property
    def _template(self) -> ChatTemplate:
        return ChatTemplate(self.tokenizer, self.templates, self.renders_to_tokens)

    @property
    def _texts(self) -> TextTokens:
        return TextTokens(self.tokenizer, self.token_rows)

    @property
    def _chats(self) -> ChatTokens:
        marker = None if self.images is None else self.images.marker
        return ChatTokens(self._texts, self._template, self.context_tokens, self._needs_of, marker)

    def with_needs(self) -> PromptMaker:
        """Return a copy whose `needs` are what the model's template requires of a conversation, for example
        that roles alternate. This is found out by rendering small conversations. No exception of the template
        is raised. Without a template, return this object itself.
        """
        if not self.tokenizer.has_chat_template:
            return self

        return replace(self, needs=self._template.needs(None, self.call_markers))

    def _needs_of(self, op: Generate) -> TemplateNeeds:
        """Return what the template of `op` requires of a conversation. The template is the model's own, or
        one that the request brings.
        """
        if op.chat_template is None:
            return self.needs
        if op.chat_template not in self.needs_of_others:
            if len(self.needs_of_others) >= MAX_OTHER_TEMPLATES:
                self.needs_of_others.clear()
            self.needs_of_others[op.chat_template] = self._template.needs(op.chat_template, self.call_markers)
        return self.needs_of_others[op.chat_template]

    def limit_images(self, max_pixels: int) -> None:
        """Set how many pixels an image may have at most. Later requests with larger images are refused."""
        if self.images is not None:
            self.images.max_pixels = max_pixels

    def read_images(self, op: Generate) -> tuple[Generate, list[Picture]]:
        """Return the request with its image parts numbered, and its decoded images. Raises RequestError if
        the model does not read images, an image cannot be read, or the request asks for log-probabilities of
        its prompt.
        """
        if not op.images:
            return op, []
        if self.images is None:
            raise RequestError(
                "not_supported", f"Model {op.model} takes no images: {self.no_images}. Leave out the images."
            )
        if op.prompt_logprobs:
            raise RequestError(
                "not_supported", "The log-probabilities of a prompt with images are not computed."
            )
        messages = number_images(op.messages or (), len(op.images))
        return msgspec.structs.replace(op, messages=messages), self.images.read(op.images)

    def placed(
        self, op: Generate, prompt: Sequence[int], pictures: Sequence[Picture]
    ) -> tuple[PlacedPicture, ...]:
        """Return the images in the messages of `op`, each with its place in the tokens of `prompt`, in the
        order of the prompt.

        `pictures` are the request's images, in the order of `op.images`. Those whose messages were dropped to
        shorten the chat are not returned. Raises RequestError if the number of image tokens in the prompt is
        not the number that the images need, or if the prompt of a new answer ends in an image.
        """
        if self.images is None or not pictures:
            return ()
        placed = place(
            pictures, image_order(op.messages or ()), prompt, self.images.image_token, len(op.context_ids)
        )
        if placed and placed[-1].end == len(prompt) and not op.emitted:
            raise RequestError("invalid_request", "The prompt ends in an image: let a text follow it.")
        return placed

    def tokens(self, op: Generate, pictures: Sequence[Picture] = ()) -> list[int]:
        """Return the prompt's token ids. The tokens in `op.emitted`, the part of the answer that a resumed
        request already has, are not included. `pictures` are the request's images, in the order of
        `op.images`.

        There may be more tokens than the context holds. Raises RequestError if the prompt is invalid, and
        EngineError if the template process fails.
        """
        check_nesting(op)
        check_client_ids((token for token, _ in op.sampling.logit_bias), self._texts.limit)
        check_client_ids([*op.emitted, *op.context_ids], self._texts.answer_limit)
        check_length(op, texts_of(op), self.tokenizer, self.context_tokens)
        tokens = self._chats.of_chat(op, pictures) if op.kind == "chat" else self._texts.of_prompt(op)
        if not tokens:
            raise RequestError("empty_prompt", "The prompt is empty: send at least one token of text.")
        check_tokenizer_ids(tokens, self.token_rows, op.model)
        if op.context_ids and tokens[:1] == self._texts.start():
            del tokens[0]  # the start token belongs only at the beginning of the whole prompt
        return [*op.context_ids, *tokens]

    def count(self, text: str) -> int:
        """Return how many tokens `text` has. Raises RequestError if the tokenizer fails to tokenize it."""
        return len(self._texts.encode(text, add_special_tokens=False))

    def tokens_before_last_message(
        self, op: Generate, prompt: Sequence[int], pictures: Sequence[Picture] = ()
    ) -> int:
        """Return how many tokens of a chat's `prompt` precede its last message. The prompt cache can store a
        snapshot at this point, for other chats that begin with the same tokens.

        `pictures` are the request's images, in the order of `op.images`. Return 0 if the number is unknown,
        because the prompt is a text, there is only one message, or the template refuses the messages without
        the last one (some templates require a user message).
        """
        messages = list(op.messages or ())[:-1]
        if op.kind != "chat" or not messages:
            return 0
        try:
            messages = normalize_messages(messages)
            options = {"add_generation_prompt": False}
            before = self._chats.render(op, messages, self._needs_of(op), options, pictures)
        except Exception:  # the template may raise anything; without this number, less is found in the cache
            return 0
        return common_prefix_length(before, prompt)

    @property
    def infill_ends(self) -> frozenset[int]:
        """Return the tokens that end the answer to a request with a suffix (infilling); empty if the model
        cannot infill.
        """
        return self._texts.infill_ends
