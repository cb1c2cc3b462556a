"""The load: a mix of requests in every dialect, drawn from a seed, so that a run can be had again. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

MODEL = "smollm2:135m"

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


@dataclass(frozen=True)
class Ask:
    """One request. `kind` names its sort in the table; `path` decides how its answer is read."""

    number: int
    kind: str
    path: str
    body: dict[str, Any]

    @property
    def streams(self) -> bool:
        return bool(self.body["stream"])


def make_asks(count: int, seed: int) -> list[Ask]:
    """`count` requests: all routes, streaming and not, greedy and seeded, short prompts and long ones."""
    draw = random.Random(seed)
    return [_ask(number, draw) for number in range(count)]


def _ask(number: int, draw: random.Random) -> Ask:
    route = ("/api/chat", "/api/generate", "/v1/chat/completions", "/v1/completions")[number % 4]
    greedy = draw.random() < 0.5
    stream = draw.random() < 0.7
    text, shape = _prompt(draw)
    tokens = draw.randint(24, 96)
    stop = draw.choice(([], [], [], ["zq"], ["\n\n"]))
    body: dict[str, Any] = {"model": MODEL, "stream": stream}
    if route.startswith("/api/"):
        sampling = {"temperature": 0} if greedy else {"temperature": 0.8, "seed": draw.randrange(10**6)}
        body["options"] = {**sampling, "num_predict": tokens, "stop": stop}
    else:
        sampling = {"temperature": 0} if greedy else {"temperature": 1.0, "seed": draw.randrange(10**6)}
        body |= {**sampling, "max_tokens": tokens} | ({"stop": stop} if stop else {})
        if stream:
            body["stream_options"] = {"include_usage": True}
    if route.endswith(("/chat", "/chat/completions")):
        body["messages"] = [{"role": "user", "content": text}]
    else:
        body["prompt"] = text
    kind = f"{route} {shape} {'stream' if stream else 'whole'} {'greedy' if greedy else 'seeded'}"
    return Ask(number, kind, route, body)


def _prompt(draw: random.Random) -> tuple[str, str]:
    subject, chance = draw.choice(SUBJECTS), draw.random()
    if chance < 0.15:
        items = "\n".join(FILLER.format(n=n) for n in range(1, draw.randint(8, 16)))
        return f"{items}\nNow write about {subject}.", "long"
    if chance < 0.3:
        return f"Repeat ten times: {draw.choice(PIECES)} {draw.choice(PIECES)}", "multibyte"
    return f"Write a few sentences about {subject}.", "short"
