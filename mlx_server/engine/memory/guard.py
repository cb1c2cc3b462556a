"""The engine's own ledger: forecasts, promises to requests, and the word on each new need. Pure.

It reaches the machine through `read`, the models' files through `facts_of`, the loaded models through
`tenants`. Used from the MLX thread only. A check costs some 100 µs: reading the machine's figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mlx_server.engine.errors import LoadError
from mlx_server.engine.kv.kv_quantization import KvOf, KvQuantization, as_computed
from mlx_server.engine.memory.forecast import ENGINE_BYTES, Forecast, forecast, weights_alone
from mlx_server.engine.memory.ledger import (
    Fits,
    Holding,
    Ledger,
    MemoryReading,
    Need,
    Never,
    decide,
)
from mlx_server.engine.memory.refusals import Ask, MustWait, refusal, size
from mlx_server.engine.memory.weights import Arithmetic, Headers
from mlx_server.model_store import ModelEntry
from mlx_server.model_store.files.weight_files import UnreadableModel
from mlx_server.protocol import Generate, MemoryUse

UNLIMITED_ANSWER_TOKENS = 2048
"""What an answer without `max_tokens` is given room for; most end long before the context does."""


def answer_room(op: Generate, limit_tokens: int) -> int:
    """How many tokens of answer are planned for, of `limit_tokens` that it may have."""
    if op.max_tokens is not None and op.max_tokens >= 0:
        return limit_tokens
    return min(limit_tokens, max(UNLIMITED_ANSWER_TOKENS, len(op.emitted) + UNLIMITED_ANSWER_TOKENS // 4))


EXTEND_BEFORE_TOKENS, EXTEND_EVERY_TOKENS = 256, 32
"""An unlimited answer so near the end of its promise asks for more, once in so many tokens."""


@dataclass(frozen=True)
class Files:
    """What a model's folder says of itself, nothing of it loaded."""

    config: dict[str, Any]
    headers: Headers
    tokenizer_file_bytes: int = 0


@dataclass(frozen=True)
class Tenant:
    """A loaded model: the bytes its weights take, and the ids of its requests."""

    entry: ModelEntry
    bytes: int
    requests: Sequence[str]
    last_used_s: float
    awaited: bool = False


class MemoryGuard:
    """Decides; those who ask act on it. `relieve` is called where room must be made for a request first."""

    def __init__(
        self,
        limit_bytes: int,
        arithmetic: Arithmetic,
        step_tokens: int,
        read: Callable[[], MemoryReading],
        files_of: Callable[[ModelEntry], Files],
        kv_of: KvOf = as_computed,
    ) -> None:
        self._limit_bytes, self._arithmetic, self._step_tokens = limit_bytes, arithmetic, step_tokens
        self._read, self._files_of, self._kv_of = read, files_of, kv_of
        self._kept_as_computed: set[str] = set()  # digests
        self.tenants: Callable[[], Iterable[Tenant]] = tuple
        self.relieve: Callable[[Fits], None] = lambda fits: None
        self._forecasts: dict[tuple[str, KvQuantization | None], Forecast] = {}
        self._promised: dict[str, dict[str, int]] = {}  # model → request → tokens
        self._loading: Holding | None = None

    # --- models ---

    def before_load(self, entry: ModelEntry, leaving: Iterable[str] = ()) -> Fits:
        """The word on loading `entry` where `leaving` go anyhow. Raises InsufficientMemory, MustWait."""
        expected = self.forecast(entry)
        need = Need(expected.load_bytes, expected.load_bytes)
        ask = Ask(
            f"Model {entry.name} ({size(expected.weights.bytes)} of weights)",
            "take a smaller or more strongly quantized model, or raise mlx.memory_limit",
            {"weights_bytes": expected.weights.bytes},
        )
        fits = self._decide(self._ledger(set(leaving)), need, ask)
        self._loading = Holding(entry.name, expected.resident_bytes, 0, busy=True, last_used_s=float("inf"))
        return fits

    def load_ended(self) -> None:
        """The model is a tenant now, or will not come."""
        self._loading = None

    def forecast(self, entry: ModelEntry) -> Forecast:
        """What `entry` will take; kept by its identity. Where its files say too little, its weights alone."""
        kv = None if entry.digest in self._kept_as_computed else self._kv_of(entry.name)
        known = self._forecasts.get((entry.digest, kv))
        if known is None:
            known = self._forecasts[entry.digest, kv] = self._forecast(entry, kv)
        return known

    def keeps_kv_as_computed(self, entry: ModelEntry) -> None:
        """It turned out that the model cannot work with quantized keys and values."""
        self._kept_as_computed.add(entry.digest)

    def _forecast(self, entry: ModelEntry, kv: KvQuantization | None) -> Forecast:
        try:
            files = self._files_of(entry)
        except UnreadableModel as error:
            raise LoadError(entry.name, str(error)) from error
        try:
            return forecast(
                files.config,
                files.headers,
                self._arithmetic,
                step_tokens=self._step_tokens,
                context_tokens=entry.context_tokens,
                embeds=entry.kind == "embed",
                tokenizer_file_bytes=files.tokenizer_file_bytes,
                kv=kv,
            )
        except (KeyError, TypeError, ValueError, ZeroDivisionError):  # an odd configuration may still load
            return weights_alone(entry.weights_bytes)

    # --- requests ---

    def admit(self, op: Generate, prompt_tokens: int, limit_tokens: int) -> None:
        """Promise a request the KV of its prompt and its answer. Raises InsufficientMemory, MustWait."""
        answer_tokens = answer_room(op, limit_tokens)
        fits = self.check(op.model, prompt_tokens, answer_tokens)
        if fits != Fits():
            self.relieve(fits)
        self._promised.setdefault(op.model, {})[op.id] = prompt_tokens + answer_tokens

    def check(self, model: str, prompt_tokens: int, answer_tokens: int) -> Fits:
        """The word on a request, nothing promised. Raises InsufficientMemory, MustWait."""
        ledger = self._ledger()
        entry = self._entry(model)
        if entry is None:
            return Fits()
        ask = Ask(
            f"A request to {model} with {prompt_tokens} prompt tokens and up to {answer_tokens} of answer",
            "shorten the prompt, ask for fewer tokens (max_tokens), or send fewer requests at once",
            {"prompt_tokens": prompt_tokens, "answer_tokens": answer_tokens},
        )
        need = self._request_need(entry, prompt_tokens + answer_tokens)
        return self._decide(ledger, need, ask, (prompt_tokens, answer_tokens))

    def extend_reservation(self, model: str, request: str, tokens: int, most_tokens: int) -> bool:
        """Whether a request grown to `tokens`, of `most_tokens` that it may have, can go on.

        Its promise is extended in good time, and asked for again and again until it is used up.
        """
        promised = self._promised.get(model, {}).get(request, most_tokens)
        if promised >= most_tokens or tokens < promised - EXTEND_BEFORE_TOKENS:
            return True
        if tokens % EXTEND_EVERY_TOKENS == 0 and (entry := self._entry(model)) is not None:
            ledger = self._ledger()
            more = min(promised + UNLIMITED_ANSWER_TOKENS // 2, most_tokens)
            fits = decide(ledger, self._request_need(entry, more, request))
            if isinstance(fits, Fits):
                if fits != Fits():
                    self.relieve(fits)
                self._promised[model][request] = more
                return True
        return tokens < promised

    def _entry(self, model: str) -> ModelEntry | None:
        return next((tenant.entry for tenant in self.tenants() if tenant.entry.name == model), None)

    def _request_need(self, entry: ModelEntry, tokens: int, request: str | None = None) -> Need:
        """What one more request of `tokens` takes, or what `request` takes in growing to them."""
        expected = self.forecast(entry)
        ours = self._promised.get(entry.name, {})
        before = expected.requests_bytes(len(ours), max(ours.values(), default=0))
        after = expected.requests_bytes(len(ours) + (request not in ours), max([tokens, *ours.values()]))
        return Need(after - before, expected.requests_bytes(1, tokens), staying=entry.name)

    # --- the ledger ---

    def use(self, kv_bytes: int, prompt_cache_bytes: int) -> MemoryUse:
        """What is down in it, for those who ask."""
        held = [self._holding(tenant) for tenant in self.tenants()]
        weights = sum(tenant.bytes for tenant in self.tenants())
        return MemoryUse(weights, kv_bytes, sum(h.reserved_bytes for h in held), prompt_cache_bytes)

    def _ledger(self, leaving: set[str] | None = None) -> Ledger:
        holdings = [self._holding(t) for t in self.tenants() if t.entry.name not in (leaving or ())]
        if self._loading is not None:
            holdings.append(self._loading)
        return Ledger(self._limit_bytes, ENGINE_BYTES, self._read(), holdings)

    def _holding(self, tenant: Tenant) -> Holding:
        name, expected = tenant.entry.name, self.forecast(tenant.entry)
        promised = self._promised.get(name, {})
        for gone in promised.keys() - set(tenant.requests):
            del promised[gone]
        if expected.kv is None:
            reserved = expected.requests_bytes(min(len(tenant.requests), 1), 0)
        else:
            reserved = expected.requests_bytes(len(promised), max(promised.values(), default=0))
        bytes_ = tenant.bytes + expected.tokenizer_bytes
        return Holding(name, bytes_, reserved, bool(tenant.requests), tenant.last_used_s, tenant.awaited)

    def _decide(self, ledger: Ledger, need: Need, ask: Ask, tokens: tuple[int, int] = (0, 0)) -> Fits:
        decision = decide(ledger, need)
        if isinstance(decision, Fits):
            return decision
        error = refusal(decision, ledger, need, ask)
        if isinstance(decision, Never):
            raise error
        raise MustWait(error, behind_ours=bool(decision.busy), tokens=tokens)
