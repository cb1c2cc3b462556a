"""Define the operations: the messages from the gateway to the engine."""

from __future__ import annotations

from typing import Literal

from msgspec import field

from mlx_server.protocol.base import Operation
from mlx_server.protocol.values import Sampling


class Generate(Operation, frozen=True):
    """Generate an answer to a chat or continue a text, as `kind` says. A chat is `messages`, rendered by the
    model's template; a text is `prompt`, or `prompt_ids` in its place.

    `tools` are offered to the chat template, and `template` holds further variables for it, such as
    enable_thinking. `chat_template` (Jinja) is used in place of the model's own. `think=True` requires a
    model that thinks; None leaves that to the template. `json_schema` constrains the answer (after any
    thinking) to JSON of that schema. `tool_choice` says how tool calls in the answer are treated: as text
    ("none"), as calls wherever they stand ("auto"), or the whole answer has to be a call ("required").
    `top_logprobs` asks for the log-probabilities of the drawn token and of that number of alternatives.

    With `count_only`, nothing is generated, and `Done` reports the number of the prompt's tokens, even if it
    exceeds the context. `reports_prompt` asks for `Done.prompt`, with the prompt's token ids and the text of
    the whole prompt. With `reports_pieces`, `Done.prompt` also has the text of each single token. With
    `prompt_logprobs`, `Done.prompt` has the log-probability of each token and of `top_logprobs` alternatives.
    If `adds_special_tokens` is False, a text gets no token that the tokenizer would add by itself.

    The context is as long as the model's, or as `context_tokens` if that is less. A prompt that fills the
    context or is longer fails, unless `truncate` allows shortening. With `truncate` alone, a chat loses its
    oldest turns, and a text still fails. With `truncate` and `shift`, a text loses its beginning, and a chat
    or text is shortened until there is room for the answer: `max_tokens` tokens, but at most an eighth of the
    context.
    With `shortens_text`, a chat is shortened like a text: it keeps its turns, and its last message loses its
    beginning.

    `images` holds each image file (PNG, JPEG, WebP, GIF, AVIF or HEIC, as it was sent) in standard base64, in
    the order of the image parts in the messages. The content of a message with images is a list of parts,
    `{"type": "text", "text": str}` and `{"type": "image"}`; every other content is a string. Only a chat has
    images.

    `suffix` is the text after a gap that the model fills; the text before the gap is `prompt`. `context_ids`
    are the tokens that precede the prompt. `returns_context` asks for `Done.context`, which holds these
    tokens, then the prompt and the answer.

    With `check_only`, nothing is generated and no model is loaded: `Accepted` says that the request can be
    served, as far as that can be known before it runs, and `Failed` says why it never can be.

    If an engine has run the request before and was lost, `resumed` is True, and `emitted` holds the token ids
    that the gateway has already received; `max_tokens` includes them. `created_s` is when the request was
    first accepted, in seconds since 1970: a chat template that writes the date gets that of `created_s`, or
    of the present if it is None. `max_tokens` None allows tokens until the context is full. With a negative
    `keep_alive_s`, the model stays loaded, and with 0, it is unloaded after this request. None leaves the
    keep-alive as the last request that named one has set it (at first, the configured default).
    `traceparent` is the W3C header of the span to which the engine's work belongs; with None, no spans are
    made.

    Several models may share their weights, which are then loaded under the name of one of these models.
    `model` is that name. If the client asked for another of these models, `requested_model` is the name of
    the model that the client asked for; otherwise it is empty. If the request has to wait for a load, the
    engine looks up again under which name the weights of `requested_model` are loaded, because the model
    `model` may be deleted or replaced meanwhile. `Embed`, `Rerank` and `Load` have the field
    `requested_model`, too.
    """

    id: str
    model: str
    kind: Literal["chat", "text"]
    messages: tuple[dict, ...] | None = None
    images: tuple[str, ...] = ()
    prompt: str | None = None
    prompt_ids: tuple[int, ...] | None = None
    count_only: bool = False
    check_only: bool = False
    tools: tuple[dict, ...] | None = None
    template: dict | None = None
    chat_template: str | None = None
    think: bool | None = None
    json_schema: dict | None = None
    tool_choice: Literal["none", "auto", "required"] = "none"
    top_logprobs: int | None = None
    emitted: tuple[int, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    context_tokens: int | None = None
    keep_alive_s: float | None = None
    truncate: bool = False
    shift: bool = False
    shortens_text: bool = False
    suffix: str | None = None
    context_ids: tuple[int, ...] = ()
    returns_context: bool = False
    reports_prompt: bool = False
    reports_pieces: bool = False
    prompt_logprobs: bool = False
    adds_special_tokens: bool = True
    traceparent: str | None = None
    resumed: bool = False
    created_s: float | None = None
    requested_model: str = ""


class Cancel(Operation, frozen=True):
    """Cancel the request `id`. If the engine knows the request, it answers with `Done(reason="cancelled")`,
    else with nothing.
    """

    id: str


class Embed(Operation, frozen=True):
    """Embed `texts`; answered by `Embedding` or `Failed`.

    A text may be as long as the model's context, or as `context_tokens` if that is less. A longer text is cut
    off, or fails if `truncate` is False. `resumed` is True if an engine has run the request before and was
    lost.
    """

    id: str
    model: str
    texts: tuple[str, ...]
    truncate: bool = True
    keep_alive_s: float | None = None
    context_tokens: int | None = None
    traceparent: str | None = None
    resumed: bool = False
    requested_model: str = ""


class Rerank(Operation, frozen=True):
    """Score how well each of `documents` answers `query`; answered by `Reranked` or `Failed`.

    The query and one document together may be as long as the model's context, or as `context_tokens` if that
    is less. The end of a longer document is cut off; if `truncate` is False, the request fails instead. A
    document is also cut to `max_document_tokens`. A query that leaves no room for a document fails.
    `instruction` describes the task, for a model whose prompt has a place for it. With `raw_scores`, the
    scores are the model's logits, without its activation function. `resumed` is True if an engine has run the
    request before and was lost.
    """

    id: str
    model: str
    query: str
    documents: tuple[str, ...]
    instruction: str | None = None
    truncate: bool = True
    max_document_tokens: int | None = None
    raw_scores: bool = False
    keep_alive_s: float | None = None
    context_tokens: int | None = None
    traceparent: str | None = None
    resumed: bool = False
    requested_model: str = ""


class Load(Operation, frozen=True):
    """Load a model, or renew its keep-alive time if it is loaded; answered by `Loaded` or `Failed`. Until its
    first use, the model is kept for `expires_in_s` seconds, if that is less than its keep-alive.

    `resumed` is True if the gateway loads the model because an engine that was lost had loaded it. Such a
    `Load` does not change the model's keep-alive if another request has already named one to the new engine.
    """

    id: str
    model: str
    keep_alive_s: float | None = None
    expires_in_s: float | None = None
    resumed: bool = False
    requested_model: str = ""


class Unload(Operation, frozen=True):
    """Unload a model when its requests are done; answered by `Unloaded`, even if the model was not loaded."""

    id: str
    model: str


class Probe(Operation, frozen=True):
    """Compute a token, an embedding or a score with each loaded model, between users' requests, to test the
    engine; answered by `Probed`.
    """

    id: str


class Shutdown(Operation, frozen=True):
    """Shut down gracefully and exit with code 0.

    Running requests get `drain_s` more seconds to finish; None means the configured time.
    """

    drain_s: float | None = None


class Begin(Operation, frozen=True):
    """Start serving. This is the first operation that a standby engine receives when it takes over."""


Op = Generate | Cancel | Embed | Rerank | Load | Unload | Probe | Shutdown | Begin
