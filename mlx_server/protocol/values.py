"""Define the values that requests and answers consist of."""

from __future__ import annotations

from mlx_server.protocol.base import Value


class Sampling(Value, frozen=True):
    """Settings for drawing a token. Temperature 0 is greedy; a neutral value, such as 1.0 for `top_p` or 0
    for `top_k`, switches a setting off.

    The random key of the token at position i is derived from (seed, i) alone, so a request yields the same
    text alone, in a batch, and across a crash of the engine. The gateway always sends a seed: it draws one if
    the client gave none. `logit_bias` holds pairs of a token id and the number that is added to that token's
    logit.
    """

    seed: int = 0
    temperature: float = 0.8
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repeat_penalty: float = 1.0
    repeat_last_tokens: int = 64
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()


class ToolCall(Value, frozen=True):
    """A call of a client's function that the model wrote. `arguments` is a JSON object."""

    name: str
    arguments: dict


class TokenLogprob(Value, frozen=True):
    """A candidate token and the natural logarithm of its probability.

    `bytes` are the UTF-8 bytes of the token, which may be only a part of a character; `text` shows such
    bytes as U+FFFD.
    """

    text: str
    bytes: tuple[int, ...]
    logprob: float


class Logprobs(Value, frozen=True):
    """The log-probability of the drawn token, and those of the most probable tokens, the highest first."""

    drawn: TokenLogprob
    top: tuple[TokenLogprob, ...] = ()


class PromptReport(Value, frozen=True):
    """The prompt as the model reads it: the token ids, and their text. `pieces` is the text of each token.

    `logprobs` has the log-probability of each token, if the operation asked for it. The first token's value
    is meaningless.
    """

    ids: tuple[int, ...]
    text: str
    pieces: tuple[str, ...] = ()
    logprobs: tuple[Logprobs, ...] = ()


class Usage(Value, frozen=True):
    """The token counts and durations of a finished generation.

    The counts cover the whole request. The durations cover only the work of the engine that reports them:
    after a crash, the work of earlier engines is not included. `cached_tokens` counts the prompt tokens that
    were found in the prompt cache, `reasoning_tokens` the answer's tokens that were thinking.
    """

    prompt_tokens: int
    completion_tokens: int
    load_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
