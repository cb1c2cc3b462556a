"""Write answers in OpenAI's form: one JSON object, or chunks in server-sent events. Pure."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import msgspec

from mlx_server import protocol
from mlx_server.gateway.dialects.answer_parts import AnswerPart, AnswerToolCall
from mlx_server.gateway.dialects.chat.tool_choice import NO_RULES, CallFilter, CallRules
from mlx_server.gateway.dialects.embeddings import Embeddings
from mlx_server.gateway.dialects.error_envelopes import openai_body
from mlx_server.gateway.errors import GatewayError
from mlx_server.gateway.json_text import json_bytes, json_text
from mlx_server.model_store import ModelEntry
from vestal.web import server_sent_events

FLOAT32_BYTES = 4
STREAM_END = server_sent_events.frame(b"[DONE]")


@dataclass(frozen=True)
class AnswerShape:
    """The differences between the objects of /v1/chat/completions and of /v1/completions.

    An answer is written as one object, or streamed in several chunks. Each holds a choice, whose fields for
    the content depend on the endpoint. The function `whole_content` returns these fields for a whole answer,
    and `chunk_content` for the part of an answer in one chunk. `first_content` are the fields of a chunk that
    begins each answer (None: there is no such chunk), and `empty_content` those of an answer's last chunk and
    of each keep-alive.

    The function `logprobs` returns log probabilities in the endpoint's form. Its arguments are the tokens,
    and how many characters of the choice's text precede them.
    """

    id_prefix: str
    whole_object: str
    chunk_object: str
    whole_content: Callable[[AnswerPart], dict[str, Any]]
    first_content: dict[str, Any] | None
    chunk_content: Callable[[AnswerPart], dict[str, Any]]
    empty_content: dict[str, Any]
    logprobs: Callable[[Sequence[protocol.Logprobs], int], dict[str, Any]]


class AnswerChunks:
    """An `AnswerRenderer` that writes the answers to one HTTP request in OpenAI's form.

    `prefixes` holds for each answer the text that it begins with (the prompt if the client wants an `echo`).
    `created` is in seconds since 1970. With `include_usage`, a stream ends with the token counts. `rules` say
    which tool calls are accepted; with `uses_functions`, calls are written in OpenAI's older form.
    """

    def __init__(
        self,
        shape: AnswerShape,
        answer_id: str,
        created: int,
        model: str,
        *,
        prefixes: Sequence[str],
        answers_per_prompt: int,
        include_usage: bool,
        rules: CallRules = NO_RULES,
        uses_functions: bool = False,
    ) -> None:
        self._shape = shape
        self._head = {"id": f"{shape.id_prefix}{answer_id}", "created": created, "model": model}
        self._chunk_head = self._head | {"object": shape.chunk_object}
        self._prefixes = prefixes
        self._answers_per_prompt = answers_per_prompt
        self._include_usage = include_usage
        self._ends: dict[int, protocol.Done] = {}
        self._filters = [CallFilter(rules) for _ in prefixes]
        self._chars = [len(prefix) for prefix in prefixes]  # before the next token with a log probability
        self._uses_functions = uses_functions

    def whole(self, answers: Sequence[tuple[AnswerPart, protocol.Done]]) -> dict[str, Any]:
        """Return the body of a response that is not streamed: one object with all answers. `answers` has the
        whole content and the end of each answer.
        """
        choices = []
        for index, (part, _) in enumerate(answers):
            answer = self._filters[index].apply(part)
            echoed = answer.done.prompt if answer.done else None
            prefix = echoed.text if echoed else self._prefixes[index]
            content = self._shape.whole_content(msgspec.structs.replace(answer, text=prefix + answer.text))
            logprobs = self._logprobs(index, answer)
            if echoed and echoed.logprobs:
                logprobs = _echoed_logprobs([*echoed.logprobs, *answer.logprobs])
            choices.append(self._choice(index, content, answer.done, logprobs))
        ends = [done for _, done in answers]
        return self._head | {
            "object": self._shape.whole_object,
            "choices": choices,
            "usage": _usage(ends, self._answers_per_prompt),
        }

    # --- AnswerRenderer ---

    def begin(self) -> Iterator[bytes]:
        if self._shape.first_content is not None:
            for index in range(len(self._prefixes)):
                yield self._chunk(index, self._shape.first_content)
        for index, prefix in enumerate(self._prefixes):
            if prefix:
                yield self._chunk(index, self._shape.chunk_content(AnswerPart(prefix)))

    def idle(self) -> Iterator[bytes]:
        running = next(index for index in range(len(self._prefixes)) if index not in self._ends)
        yield self._chunk(running, self._shape.empty_content)

    def part(self, index: int, part: AnswerPart) -> Iterator[bytes]:
        part = self._filters[index].apply(part)
        if part.has_content:
            yield self._chunk(index, self._shape.chunk_content(part), None, self._logprobs(index, part))
        if part.done:
            self._ends[index] = part.done
            yield self._chunk(index, self._shape.empty_content, part.done)

    def end(self) -> Iterator[bytes]:
        if self._include_usage:
            ends = [self._ends[index] for index in sorted(self._ends)]
            usage = _usage(ends, self._answers_per_prompt)
            yield _event(self._chunk_head | {"choices": [], "usage": usage})
        yield STREAM_END

    def error(self, error: GatewayError) -> Iterator[bytes]:
        yield _event(openai_body(error))
        yield STREAM_END

    # --- inside ---

    def _chunk(
        self, index: int, content: dict[str, Any], done: protocol.Done | None = None, logprobs: Any = None
    ) -> bytes:
        chunk = self._chunk_head | {"choices": [self._choice(index, content, done, logprobs)]}
        return _event(chunk | {"usage": None} if self._include_usage else chunk)

    def _choice(
        self, index: int, content: dict[str, Any], done: protocol.Done | None, logprobs: Any
    ) -> dict[str, Any]:
        reason: str | None = done.reason if done else None
        if self._uses_functions:
            content = {field: _with_function_call(message) for field, message in content.items()}
            reason = "function_call" if reason == "tool_calls" else reason
        return {"index": index, **content, "logprobs": logprobs, "finish_reason": reason}

    def _logprobs(self, index: int, part: AnswerPart) -> dict[str, Any] | None:
        """Return the log probabilities of `part`, the next part of the answer `index`, in the endpoint's
        form; None if the part has none. The characters of the part are added to those that precede the
        following part.
        """
        if not part.logprobs:
            return None
        chars_before = self._chars[index]
        self._chars[index] += sum(len(token.drawn.text) for token in part.logprobs)
        return self._shape.logprobs(part.logprobs, chars_before)


def embeddings(model: str, rows: Sequence[Any], prompt_tokens: int) -> dict[str, Any]:
    """Return vectors in the form of /v1/embeddings. Each of `rows` is one vector: a list of numbers, or its
    JSON text, or the base64 of its float32 bytes.
    """
    data = [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)]
    usage = {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens}
    return {"object": "list", "data": data, "model": model, "usage": usage}


def base64_rows(embeddings: Embeddings) -> list[str]:
    """Return each vector as base64 of its float32 bytes, without converting the bytes to Python's numbers."""
    size = embeddings.dim * FLOAT32_BYTES
    raw_blocks = [base64.b64decode(block) for block in embeddings.blocks]
    rows = [block[start : start + size] for block in raw_blocks for start in range(0, len(block), size)]
    return [base64.b64encode(row).decode("ascii") for row in rows]


def model(entry: ModelEntry) -> dict[str, Any]:
    """Return an installed model in the form of /v1/models. A model with an adapter names its base model in
    `parent`, as in vLLM.
    """
    body = {"id": entry.name, "object": "model", "created": int(entry.modified), "owned_by": "vestal"}
    return body | ({"parent": entry.preset.parent} if entry.adapter and entry.preset.parent else {})


def _usage(ends: Sequence[protocol.Done], answers_per_prompt: int) -> dict[str, Any]:
    """Return the token counts of all answers together. `ends` are the final events of the answers, in groups
    of `answers_per_prompt` for each prompt. The tokens of a prompt with several answers are counted once.
    """
    prompt = sum(done.usage.prompt_tokens for done in ends[::answers_per_prompt])
    completion = sum(done.usage.completion_tokens for done in ends)
    cached = sum(done.usage.cached_tokens for done in ends[::answers_per_prompt])
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def _message(part: AnswerPart) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": part.text, "refusal": None}
    message |= _thoughts(part)
    if part.tool_calls:
        message |= {"content": part.text or None, "tool_calls": [_tool_call(c) for c in part.tool_calls]}
    return {"message": message}


def _delta(part: AnswerPart) -> dict[str, Any]:
    delta: dict[str, Any] = {"content": part.text} if part.text else {}
    delta |= _thoughts(part)
    if part.tool_calls:
        delta["tool_calls"] = [{"index": call.index, **_tool_call(call)} for call in part.tool_calls]
    return {"delta": delta}


def _thoughts(part: AnswerPart) -> dict[str, Any]:
    """Return the thoughts under both names that clients read: DeepSeek's `reasoning_content`, and `reasoning`
    as in Ollama and OpenRouter.
    """
    return {"reasoning_content": part.thinking, "reasoning": part.thinking} if part.thinking else {}


def _with_function_call(message: Any) -> Any:
    """Return a choice's `message` or `delta` with its first tool call in OpenAI's older field `function_call`
    instead of `tool_calls`. A message without tool calls is returned as it is.
    """
    if not isinstance(message, dict) or "tool_calls" not in message:
        return message
    others = {field: value for field, value in message.items() if field != "tool_calls"}
    return others | {"function_call": message["tool_calls"][0]["function"]}


def _tool_call(call: AnswerToolCall) -> dict[str, Any]:
    """Return a tool call in OpenAI's form, in which the arguments are a string."""
    if call.custom_input is not None:
        custom = {"name": call.name, "input": call.custom_input}
        return {"id": call.id, "type": "custom", "custom": custom}
    function = {"name": call.name, "arguments": json_text(call.arguments)}
    return {"id": call.id, "type": "function", "function": function}


def _chat_logprobs(tokens: Sequence[protocol.Logprobs], chars_before: int) -> dict[str, Any]:
    rows = [_logprob(token.drawn) | {"top_logprobs": [_logprob(t) for t in token.top]} for token in tokens]
    return {"content": rows, "refusal": None}


def _logprob(token: protocol.TokenLogprob) -> dict[str, Any]:
    return {"token": token.text, "logprob": token.logprob, "bytes": list(token.bytes)}


def _completion_logprobs(tokens: Sequence[protocol.Logprobs], chars_before: int) -> dict[str, Any]:
    """Return the log probabilities of `tokens` in the form of /v1/completions. Its field `text_offset` holds
    for each token its position in the whole text of the choice, in characters. `chars_before` is how many
    characters of this text precede `tokens`: in a stream, earlier chunks contain them.
    """
    texts = [token.drawn.text for token in tokens]
    return {
        "tokens": texts,
        "token_logprobs": [token.drawn.logprob for token in tokens],
        "top_logprobs": [{other.text: other.logprob for other in token.top} for token in tokens],
        "text_offset": list(accumulate(map(len, texts[:-1]), initial=chars_before)),
    }


def _echoed_logprobs(tokens: Sequence[protocol.Logprobs]) -> dict[str, Any]:
    """Return the log probabilities of `tokens`, the tokens of a prompt and of its answer. The first token has
    no probability, because no text precedes it; its log probabilities are None (null in JSON).
    """
    logprobs = _completion_logprobs(tokens, 0)
    for field in ("token_logprobs", "top_logprobs"):
        logprobs[field][0] = None
    return logprobs


def _text(part: AnswerPart) -> dict[str, Any]:
    return {"text": part.text}


def _event(body: dict[str, Any]) -> bytes:
    return server_sent_events.frame(json_bytes(body))


CHAT = AnswerShape(
    id_prefix="chatcmpl-",
    whole_object="chat.completion",
    chunk_object="chat.completion.chunk",
    whole_content=_message,
    first_content={"delta": {"role": "assistant", "content": ""}},
    chunk_content=_delta,
    empty_content={"delta": {}},
    logprobs=_chat_logprobs,
)
COMPLETION = AnswerShape(
    id_prefix="cmpl-",
    whole_object="text_completion",
    chunk_object="text_completion",
    whole_content=_text,
    first_content=None,
    chunk_content=_text,
    empty_content={"text": ""},
    logprobs=_completion_logprobs,
)
