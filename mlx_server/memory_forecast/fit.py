"""Compare a model's forecast with a memory limit: does it fit, and with how long a context? Pure.

The engine, the gateway's list of models, the command line and the page all use these functions, so that they
agree on what fits.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from mlx_server.memory_forecast.forecast import ENGINE_BYTES, Forecast
from mlx_server.memory_forecast.kv import GROWTH_TOKENS

GIB = 1024**3
USUAL_CONTEXT_TOKENS = 8192
"""The context length that a chat with a few documents needs. A model for which it does not fit is of little
use.
"""
CONTEXTS_TOKENS = (USUAL_CONTEXT_TOKENS, 32 * 1024, 128 * 1024)
"""The contexts for which a forecast is shown, besides the longest one of the model."""


@dataclass(frozen=True)
class Fit:
    """The memory that the engine, a model and one request of `context_tokens` tokens need, and the memory
    limit.

    If `context_tokens` is None, the request has 1,024 tokens, or as many as the model's context allows if
    that is less. The engine loads a model only if such a request fits.
    """

    needed_bytes: int
    limit_bytes: int
    context_tokens: int | None = None

    @property
    def fits(self) -> bool:
        """Return True if the engine can load the model and answer the request within the limit."""
        return self.needed_bytes <= self.limit_bytes

    def as_json(self) -> dict[str, Any]:
        """Return `fits`, `needed_bytes`, `limit_bytes`, and `context_tokens` if it is not None."""
        found = {"fits": self.fits} | asdict(self)
        return {name: value for name, value in found.items() if value is not None}


def fit(forecast: Forecast, limit_bytes: int, context_tokens: int | None = None) -> Fit:
    """Return how much memory the engine, a model with this forecast and one request need, compared with
    `limit_bytes`.

    The request has `context_tokens` tokens, or as many as the model's context allows if that is less. If
    `context_tokens` is None, it is the smallest request for which the engine loads a model.
    """
    needed = forecast.load_bytes
    if context_tokens is not None and forecast.kv is not None:
        context_tokens = min(context_tokens, forecast.context_tokens)
        needed = max(needed, forecast.resident_bytes + forecast.requests_bytes(1, context_tokens))
    return Fit(ENGINE_BYTES + needed, limit_bytes, context_tokens)


def contexts_of(forecast: Forecast) -> list[int]:
    """Return the context lengths, in tokens, for which people are shown a forecast; the model's own one is
    the last. The list is empty for a model that only embeds or ranks, which has no KV cache.
    """
    if forecast.kv is None:
        return []
    own = forecast.context_tokens
    return [*(tokens for tokens in CONTEXTS_TOKENS if tokens < own), own]


def longest_context(forecast: Forecast, limit_bytes: int) -> int:
    """Return the largest number of tokens with which one request fits into the limit, up to the model's
    context.

    Return 0 if the model does not fit at all. For a model without a KV cache that fits, return its whole
    context.
    """
    if not fit(forecast, limit_bytes).fits:
        return 0
    if fit(forecast, limit_bytes, forecast.context_tokens).fits:
        return forecast.context_tokens
    low, high = 0, forecast.context_tokens // GROWTH_TOKENS
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (
            (middle, high) if fit(forecast, limit_bytes, middle * GROWTH_TOKENS).fits else (low, middle - 1)
        )
    return low * GROWTH_TOKENS


def default_limit_bytes(total_bytes: int, gpu_bytes: int | None = None) -> int:
    """Return the default memory limit: the machine's memory less 2 GiB or 15 % (whichever is more), but at
    least half of the memory, which matters on a small machine.

    If `gpu_bytes`, the memory that the machine's GPU can use, is given and smaller, return it instead.
    """
    limit = max(total_bytes - max(2 * GIB, total_bytes * 15 // 100), total_bytes // 2)
    return min(limit, gpu_bytes) if gpu_bytes else limit


def metal_limit_bytes(total_bytes: int, wired_limit_bytes: int = 0) -> int:
    """Return how many bytes of memory Metal gives to one process on a Mac with `total_bytes` of memory.

    That is the system's wired limit (`iogpu.wired_limit_mb`) if one is set (not 0). Otherwise it is two
    thirds of the memory on a Mac with at most 32 GiB, and three quarters of the memory on a larger one, like
    Metal's recommended working set.
    """
    if wired_limit_bytes:
        return min(wired_limit_bytes, total_bytes)
    return total_bytes * 2 // 3 if total_bytes <= 32 * GIB else total_bytes * 3 // 4


def sentence(forecast: Forecast, limit_bytes: int) -> str:
    """Return the forecast in words, to follow the model's name.

    Examples: `fits: 18.2 of 24.0 GiB with 8k context; at 32k it does not`, and `does not fit: it needs 41.2
    GiB, and models may have 24.0 GiB`.
    """
    least = fit(forecast, limit_bytes)
    if not least.fits:
        return f"does not fit: it needs {_gib(least.needed_bytes)}, and models may have {_gib(limit_bytes)}"
    contexts = contexts_of(forecast)
    if not contexts:
        return f"fits: {_of(least)}"
    fits = [each for tokens in contexts if (each := fit(forecast, limit_bytes, tokens)).fits]
    if not fits:
        longest = longest_context(forecast, limit_bytes) or 1
        some = fit(forecast, limit_bytes, longest)
        return f"fits only with a short context: {_of(some)} with {context_text(longest)} context"
    first, last = fits[0], fits[-1]
    text = f"fits: {_of(first)} with {context_text(contexts[0])} context"
    if last is not first:
        text += f", {_gib(last.needed_bytes)} with {context_text(contexts[len(fits) - 1])}"
    if len(fits) < len(contexts):
        text += f"; at {context_text(contexts[len(fits)])} it does not"
    return text


def context_text(tokens: int) -> str:
    """Return a context length as people write it: `8k` for 8192 tokens, and `500` for 500."""
    return f"{tokens // 1024}k" if tokens >= 1024 else str(tokens)


def _of(found: Fit) -> str:
    return f"{found.needed_bytes / GIB:.1f} of {_gib(found.limit_bytes)}"


def _gib(count: int) -> str:
    return f"{count / GIB:.1f} GiB"
