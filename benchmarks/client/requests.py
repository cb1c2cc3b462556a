"""Create the load: a mix of requests in every dialect, drawn from a seed, so that a run can be repeated."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MODEL = "smollm2:135m"
EMBEDDING_MODEL = "all-minilm"

SUBJECTS = (
    "the sea at night",
    "how bread rises",
    "a lighthouse keeper and his cat",
    "why the sky is blue",
    "the rules of chess",
    "naïve café owners in Zürich",
    "a train through the snow",
    "what a mutex is for",
    "the Fibonacci numbers",
    "how bees find their way home",
)
PIECES = ("🙂🙃", "你好，世界。", "Ελληνικά", "日本語のテキスト", "naïve — “quoted”")
FILLER = "Item {n}: the keeper of lamp {n} notes the wind, the tide and the hour, and signs with {n}."
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 40},
        "words": {"type": "array", "items": {"type": "string", "maxLength": 20}, "maxItems": 4},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
    },
    "required": ["name", "words", "age"],
}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a place.",
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string", "maxLength": 40}, "days": {"type": "integer"}},
            "required": ["place", "days"],
        },
    },
}


@dataclass(frozen=True)
class ClientRequest:
    """One request. `kind` describes it in the report; `path` decides how its answer is read."""

    number: int
    kind: str
    path: str
    body: dict[str, Any]

    @property
    def streams(self) -> bool:
        return bool(self.body.get("stream"))


def make_requests(count: int, seed: int) -> list[ClientRequest]:
    """Return `count` requests: all routes, streamed and whole, greedy and seeded, with short and long
    prompts.
    """
    draw = random.Random(seed)
    return [_ASKS[number % len(_ASKS)](number, draw) for number in range(count)]


def comes_back_by_id(number: int) -> bool:
    """Return whether the client of request `number` resumes a cut-off answer by the answer's id. Half of the
    requests of each kind do; for the others, the client sends the request again with its Idempotency-Key.
    """
    return (number + number // len(_ASKS)) % 2 == 0


# --- text ---


def _text(path: str) -> Callable[[int, random.Random], ClientRequest]:
    def ask(number: int, draw: random.Random) -> ClientRequest:
        text, shape = _prompt(draw)
        body, kind = _body(path, draw, draw.randint(24, 96))
        stop = draw.choice(([], [], [], ["zq"], ["\n\n"]))
        if path.startswith("/api/"):
            body["options"]["stop"] = stop
        elif stop and path != "/v1/responses":  # this API has no stop strings
            body["stop_sequences" if path == "/v1/messages" else "stop"] = stop
        if path.endswith(("/chat", "/chat/completions", "/messages")):
            body["messages"] = [{"role": "user", "content": text}]
        elif path == "/v1/responses":
            body["input"] = text
        else:
            body["prompt"] = text
        return ClientRequest(number, f"{path} {shape} {kind}", path, body)

    return ask


def _body(path: str, draw: random.Random, tokens: int) -> tuple[dict[str, Any], str]:
    """Return a request body for the route `path`, without a prompt, and a description of it, such as `stream
    greedy`. The body names the model MODEL, and asks for at most `tokens` tokens. `draw` decides whether the
    answer is streamed, and whether it is greedy or sampled with a seed (for `/v1/messages`, always greedy).
    """
    greedy, stream = draw.random() < 0.5, draw.random() < 0.7
    if path == "/v1/messages":  # it has no seed, so sampled answers would differ
        greedy = True
    body: dict[str, Any] = {"model": MODEL, "stream": stream}
    temperature = 0.0 if greedy else 0.8
    sampling = {"temperature": temperature} | ({} if greedy else {"seed": draw.randrange(10**6)})
    if path.startswith("/api/"):
        body["options"] = {**sampling, "num_predict": tokens}
    elif path == "/v1/responses":
        body |= {**sampling, "max_output_tokens": tokens}
    else:
        body |= {**sampling, "max_tokens": tokens}
        if stream and path != "/v1/messages":
            body["stream_options"] = {"include_usage": True}
    return body, f"{'stream' if stream else 'whole'} {'greedy' if greedy else 'seeded'}"


def _prompt(draw: random.Random) -> tuple[str, str]:
    subject, dice = draw.choice(SUBJECTS), draw.random()
    if dice < 0.15:
        items = "\n".join(FILLER.format(n=n) for n in range(1, draw.randint(8, 16)))
        return f"{items}\nNow write about {subject}.", "long"
    if dice < 0.3:
        return f"Repeat ten times: {draw.choice(PIECES)} {draw.choice(PIECES)}", "multibyte"
    return f"Write a few sentences about {subject}.", "short"


# --- constrained by a grammar ---


def _json(path: str) -> Callable[[int, random.Random], ClientRequest]:
    def ask(number: int, draw: random.Random) -> ClientRequest:
        body, kind = _body(path, draw, 96)
        body["messages"] = [{"role": "user", "content": f"Describe {draw.choice(SUBJECTS)} as JSON."}]
        if path.startswith("/api/"):
            body["format"] = SCHEMA
        else:
            schema = {"name": "description", "schema": SCHEMA}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return ClientRequest(number, f"{path} JSON {kind}", path, body)

    return ask


def _tool(number: int, draw: random.Random) -> ClientRequest:
    path = "/v1/chat/completions"
    body, kind = _body(path, draw, 96)
    body |= {"tools": [TOOL], "tool_choice": "required"}
    body["messages"] = [{"role": "user", "content": f"How is the weather for {draw.choice(SUBJECTS)}?"}]
    return ClientRequest(number, f"{path} tool {kind}", path, body)


# --- vectors ---


def _vectors(path: str) -> Callable[[int, random.Random], ClientRequest]:
    def ask(number: int, draw: random.Random) -> ClientRequest:
        texts = [f"{number}.{n} {draw.choice(SUBJECTS)}" for n in range(draw.choice((1, 8, 64)))]
        return ClientRequest(
            number, f"{path} {len(texts)} texts", path, {"model": EMBEDDING_MODEL, "input": texts}
        )

    return ask


_CHAT, _GENERATE = _text("/api/chat"), _text("/api/generate")
_COMPLETIONS, _COMPLETION = _text("/v1/chat/completions"), _text("/v1/completions")
_RESPONSES, _MESSAGES = _text("/v1/responses"), _text("/v1/messages")
_ASKS: tuple[Callable[[int, random.Random], ClientRequest], ...] = (
    _CHAT, _GENERATE, _COMPLETIONS, _COMPLETION, _json("/api/chat"), _vectors("/api/embed"),
    _CHAT, _RESPONSES, _COMPLETIONS, _MESSAGES, _tool, _RESPONSES,
    _MESSAGES, _GENERATE, _RESPONSES, _COMPLETION, _json("/v1/chat/completions"), _vectors("/v1/embeddings"),
)  # fmt: skip
