"""Put an answer together from the JSON messages that a server sends, in each dialect (the API of Ollama,
OpenAI or Anthropic). Pure.

A message is a complete response, or one event or line of a streamed response.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Answer:
    """What a client has received of an answer. Answers are only compared, so `text` also has the tool calls,
    and a digest of embeddings in place of the vectors.

    `finished` means that the server reported the answer's end, and `reason` is the finish reason that it
    gave. `tokens` is the number of generated tokens. `ids` has the ids that the server's messages contain for
    this answer; a correct server uses one id. `fault` says what failed, "" if nothing did. `pieces_at` has
    the monotonic times at which the parts of the text arrived.
    """

    text: str = ""
    finished: bool = False
    reason: str = ""
    tokens: int = 0
    fault: str = ""
    ids: set[str] = field(default_factory=set)
    pieces_at: list[float] = field(default_factory=list)

    def add(self, text: str, at: float) -> None:
        if text:
            self.text += text
            self.pieces_at.append(at)

    def end(self, reason: str, tokens: int | None = None) -> None:
        self.finished, self.reason = True, reason
        self.tokens = self.tokens if tokens is None else tokens


Said = dict[str, Any]


def read(path: str, answer: Answer, said: Said, at: float) -> None:
    """Add `said`, a message that a server sent as part of its answer to a request of the route `path`, to
    `answer`. An error message is stored in `answer.fault`.

    `at` is the monotonic time at which the message was received. Raises KeyError if the message lacks a
    field.
    """
    if said.get("error"):
        answer.fault = json.dumps(said["error"])[:200]
    else:
        _READERS[path](answer, said, at)


def _ollama(answer: Answer, said: Said, at: float) -> None:
    part = said.get("message") or {"content": said.get("response", "")}
    answer.add(part["content"], at)
    for call in part.get("tool_calls") or ():
        answer.add(f"{call['function']['name']}({json.dumps(call['function']['arguments'])})", at)
    if said["done"]:
        answer.end(said["done_reason"], said["eval_count"])


def _openai(answer: Answer, said: Said, at: float) -> None:
    answer.ids.add(said["id"])
    for choice in said["choices"]:
        part = choice.get("delta") or choice.get("message") or choice
        answer.add(part.get("content") or part.get("text") or "", at)
        for call in part.get("tool_calls") or ():
            function = call["function"]
            answer.add((function.get("name") or "") + (function.get("arguments") or ""), at)
        if choice["finish_reason"]:
            answer.end(choice["finish_reason"])
    if said.get("usage"):
        answer.tokens = said["usage"]["completion_tokens"]


def _anthropic(answer: Answer, said: Said, at: float) -> None:
    match said["type"]:
        case "message":
            answer.ids.add(said["id"])
            answer.add("".join(block["text"] for block in said["content"]), at)
            answer.end(said["stop_reason"], said["usage"]["output_tokens"])
        case "message_start":
            answer.ids.add(said["message"]["id"])
        case "content_block_delta":
            answer.add(said["delta"]["text"], at)
        case "message_delta":
            answer.end(said["delta"]["stop_reason"], said["usage"]["output_tokens"])


def _vectors(answer: Answer, said: Said, at: float) -> None:
    vectors = said["embeddings"] if "embeddings" in said else [row["embedding"] for row in said["data"]]
    answer.add(f"vectors {hashlib.sha256(json.dumps(vectors).encode()).hexdigest()}", at)
    answer.end("stop")


def _responses(answer: Answer, said: Said, at: float) -> None:
    response = said.get("response", said)
    if error := response.get("error"):
        answer.fault = json.dumps(error)[:200]
    elif said.get("type") == "response.output_text.delta":
        answer.add(said["delta"], at)
    elif response.get("status") in ("completed", "incomplete"):
        answer.ids.add(response["id"])
        if said is response:  # it was not streamed
            parts = (part for item in response["output"] for part in item.get("content") or ())
            answer.add("".join(part["text"] for part in parts), at)
        answer.end(response["status"], response["usage"]["output_tokens"])


_READERS: dict[str, Callable[[Answer, Said, float], None]] = {
    "/api/chat": _ollama,
    "/api/generate": _ollama,
    "/api/embed": _vectors,
    "/v1/chat/completions": _openai,
    "/v1/completions": _openai,
    "/v1/embeddings": _vectors,
    "/v1/messages": _anthropic,
    "/v1/responses": _responses,
}
