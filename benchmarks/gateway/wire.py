"""Measure the time to encode and decode each message between gateway and engine, and its size.

    python -m benchmarks.gateway.wire

The median over several rounds is printed, in microseconds per message. The token message is sent for each
token of each stream; the others are sent once per request or once per second.
"""

from __future__ import annotations

import statistics
import timeit
from collections.abc import Callable

from mlx_server import protocol

ROUNDS = 31
ROUND_S = 0.02
PROMPT_TOKENS = 2_000
ROW = "{:<34} {:>8} {:>10} {:>10}"


def messages() -> dict[str, protocol.Op | protocol.Event]:
    """Return the measured messages, by the names under which they are printed."""
    request, model = "1a2b3c4d-12", "smollm2:135m"
    likely = protocol.TokenLogprob(" hello", tuple(b" hello"), -1.2345678)
    sampling = protocol.Sampling(seed=1_234_567_890, temperature=0.7, top_p=0.9)
    prompt = "word " * PROMPT_TOKENS
    report = protocol.LoadedModelReport(model, "generate", 10**9, 8_192, 300.0, 10**8, on_gpu=True)
    memory, cache = protocol.MemoryUse(10**9, 10**8, 10**8, 10**8), protocol.PromptCacheUse(*range(100, 112))
    alive = protocol.Alive(123_456, True, 10**9, (report,) * 3, None, 10**9, 10**9, memory, cache)
    return {
        "token": protocol.Token(request, 12_345, " hello", 17),
        "token with 5 log-probabilities": protocol.Token(
            request, 12_345, " hello", 17, logprobs=protocol.Logprobs(likely, (likely,) * 5)
        ),
        "generate, 2,000 words of text": protocol.Generate(
            request, model, "chat", ({"role": "user", "content": prompt},), sampling=sampling
        ),
        "generate, 2,000 token ids": protocol.Generate(
            request, model, "text", prompt_ids=tuple(range(1_000, 1_000 + PROMPT_TOKENS)), sampling=sampling
        ),
        "generate with a lone surrogate": protocol.Generate(
            request, model, "text", prompt=prompt + "\ud83d", sampling=sampling
        ),
        "alive, 3 models": alive,
    }


def median_us(call: Callable[[], object]) -> float:
    """Return the median time of a call in microseconds, over ROUNDS rounds of about ROUND_S seconds."""
    timer = timeit.Timer(call)
    number, took_s = timer.autorange()
    number = max(1, round(number * ROUND_S / took_s))
    return statistics.median(timer.repeat(ROUNDS, number)) / number * 1e6


def main() -> None:
    print(ROW.format("", "bytes", "encode µs", "decode µs"))
    for name, message in messages().items():
        frame = protocol.encode(message)
        is_event = isinstance(message, protocol.Event)
        decode: Callable[[bytes], object] = protocol.decode_event if is_event else protocol.decode_op
        encode_us = median_us(lambda message=message: protocol.encode(message))  # type: ignore[misc]
        decode_us = median_us(lambda decode=decode, frame=frame: decode(frame))  # type: ignore[misc]
        print(ROW.format(name, len(frame), f"{encode_us:.2f}", f"{decode_us:.2f}"))


if __name__ == "__main__":
    main()
