"""Maintain the engine's memory ledger (forecasts, reservations), and decide whether each new need fits. Pure.

The guard reads the machine's figures through `read`, the models' files through `files_of`, and the loaded
models through `tenants`. It is used on the MLX thread only, except where a method says otherwise. A decision
takes about 100 µs, mostly for reading the machine's figures.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from mlx_server.engine.memory.forecasts import Forecasts
from mlx_server.engine.memory.ledger import (
    Fits,
    Holding,
    Ledger,
    MemoryReading,
    Need,
    Never,
    decide,
)
from mlx_server.engine.memory.refusals import MustWait, RefusalWords, refusal, request_words
from mlx_server.engine.memory.reservations import (
    EXTEND_BY_TOKENS,
    Reservation,
    Reservations,
    reserved_answer_tokens,
)
from mlx_server.memory_forecast.forecast import ENGINE_BYTES, Forecast
from mlx_server.memory_forecast.kv_quantization import KvQuantizationOf, never_quantized
from mlx_server.memory_forecast.weights import Arithmetic
from mlx_server.model_store import ModelEntry
from mlx_server.model_store.forecasts import Files
from mlx_server.protocol import Generate, MemoryUse
from vestal.config.units import format_size

ImageShapes = Sequence[Sequence[int]]
"""The shapes of the pixel arrays of those images of a request that the vision tower has yet to compute."""


@dataclass(frozen=True)
class Tenant:
    """A loaded model. `entry` is its entry in the catalog, `bytes` the size of its weights and of the image
    features that it caches, and `requests` the ids of its requests. `last_used_s` is when it was last used,
    in seconds on the scheduler's clock. `awaited` is True if the next request to start needs the model.
    `shared` is the id of the weights that it shares with other models ("" if it shares none), and
    `shared_bytes` is the part of `bytes` that is shared.
    """

    entry: ModelEntry
    bytes: int
    requests: Sequence[str]
    last_used_s: float
    awaited: bool = False
    shared: str = ""
    shared_bytes: int = 0


class MemoryGuard:
    """Decides whether models and requests fit into memory, and reserves memory for them. `limit_bytes` is how
    much the whole engine may take.

    Forecasts are made from `arithmetic` (how MLX computes on this machine), `step_tokens` (how many tokens of
    a prompt a step processes), the model's files, which `files_of` reads, and the quantization of the model's
    keys and values, which `kv_of` returns. `read` measures the memory of the machine and of the process.

    The scheduler sets two attributes: `tenants` returns the loaded models, and `relieve` drops caches and
    unloads models. The guard calls `relieve` if a request fits only after that.
    """

    def __init__(
        self,
        limit_bytes: int,
        arithmetic: Arithmetic,
        step_tokens: int,
        read: Callable[[], MemoryReading],
        files_of: Callable[[ModelEntry], Files],
        kv_of: KvQuantizationOf = never_quantized,
    ) -> None:
        self._limit_bytes = limit_bytes
        self._read = read
        self._forecasts = Forecasts(arithmetic, step_tokens, files_of, kv_of)
        self.tenants: Callable[[], Iterable[Tenant]] = tuple
        self.relieve: Callable[[Fits], None] = lambda fits: None
        self._reserved = Reservations()
        self._loading: Holding | None = None
        self._last_reading: MemoryReading | None = None

    # --- models ---

    def before_load(self, entry: ModelEntry, leaving: Iterable[str] = ()) -> Fits:
        """Return what must be freed so that `entry` can be loaded. From then until `load_ended`, `entry`
        counts as a model in memory. The models `leaving` are to be unloaded in any case, so their memory
        counts as free, and they are not in the result.

        Raises InsufficientMemory if the model can never fit, and MustWait if it does not fit at this time.
        """
        expected = self.forecast(entry)
        going, shared = set(leaving), entry.weights_id
        is_there = (
            any(t.shared == shared for t in self.tenants() if t.entry.name not in going) if shared else False
        )
        present_bytes = expected.shared_bytes if is_there else 0
        need = Need(
            expected.load_bytes - present_bytes, expected.load_bytes, shared=shared if is_there else ""
        )
        ask = RefusalWords(
            f"Model {entry.name} ({format_size(expected.weights.bytes)} of weights)",
            "take a smaller or more strongly quantized model, or raise mlx.memory_limit",
            {"weights_bytes": expected.weights.bytes},
        )
        fits = self._decide(self._ledger(), need, ask, going)
        self._loading = Holding(
            entry.name,
            expected.resident_bytes,
            0,
            busy=True,
            last_used_s=float("inf"),
            shared=shared,
            shared_bytes=expected.shared_bytes,
        )
        return fits

    def load_ended(self) -> None:
        """Record that the load has ended, so that its model no longer counts as being loaded. If the load
        succeeded, `tenants` returns the model among the loaded ones from now on.
        """
        self._loading = None

    def forecast(self, entry: ModelEntry) -> Forecast:
        """Return how much memory the model `entry` and its requests need (see `Forecasts.of`). Raises
        LoadError if the model's files are unreadable.
        """
        return self._forecasts.of(entry)

    def cannot_quantize_kv(self, entry: ModelEntry) -> None:
        """Record that the model `entry` cannot work with quantized keys and values."""
        self._forecasts.cannot_quantize_kv(entry)

    # --- requests ---

    def admit(self, op: Generate, prompt_tokens: int, limit_tokens: int, images: ImageShapes = ()) -> None:
        """Reserve memory for the keys and values of a request's prompt and answer, after freeing memory if
        that is necessary. `limit_tokens` is the most tokens that the answer may have, without the prompt.
        Also reserve memory for the vision tower's work on the request's images, until `images_computed` is
        called.

        Raises InsufficientMemory if the request can never fit, and MustWait if it does not fit at this time.
        """
        answer_tokens = reserved_answer_tokens(op, limit_tokens)
        fits = self.check(op.model, prompt_tokens, answer_tokens, images)
        if fits != Fits():
            self.relieve(fits)
        entry = self._entry(op.model)
        tower_bytes = self.forecast(entry).images_bytes(images) if entry is not None else 0
        self._reserved.add(op.model, op.id, Reservation(prompt_tokens + answer_tokens, tower_bytes))

    def images_computed(self, model: str, request: str) -> None:
        """Cancel the reservation for the vision tower's work on the images of `request`, because the tower
        has computed them all.
        """
        if (reservation := self._reserved.get(model, request)) is not None:
            reservation.tower_bytes = 0

    def check(self, model: str, prompt_tokens: int, answer_tokens: int, images: ImageShapes = ()) -> Fits:
        """Return what must be freed before memory can be reserved for a request; nothing if `model` is not
        loaded. This method itself frees and reserves nothing.

        Raises InsufficientMemory if the request can never fit, and MustWait if at this time it would not fit
        even after all idle caches and models were freed.
        """
        ledger = self._ledger()
        entry = self._entry(model)
        if entry is None:
            return Fits()
        tower_bytes = self.forecast(entry).images_bytes(images)
        need = self._request_need(entry, prompt_tokens + answer_tokens, tower_bytes=tower_bytes)
        return self._decide(ledger, need, request_words(model, prompt_tokens, answer_tokens, tower_bytes))

    def check_possible(
        self,
        entry: ModelEntry,
        op: Generate,
        prompt_tokens: int,
        limit_tokens: int,
        images: ImageShapes = (),
    ) -> None:
        """Raise InsufficientMemory if the request could not be served even if nothing else needed memory.
        `limit_tokens` is the most tokens that the answer may have, without the prompt.

        Any thread may call this, because it changes nothing and uses the last reading of the machine's
        memory. Before the first reading, it does nothing.
        """
        if self._last_reading is None:
            return
        expected, answer_tokens = self.forecast(entry), reserved_answer_tokens(op, limit_tokens)
        tower_bytes = expected.images_bytes(images)
        alone_bytes = expected.requests_bytes(1, prompt_tokens + answer_tokens) + tower_bytes
        holding = Holding(entry.name, expected.resident_bytes, 0, busy=False, last_used_s=0.0)
        need = Need(alone_bytes, alone_bytes, staying=entry.name)
        ledger = Ledger(self._limit_bytes, ENGINE_BYTES, self._last_reading, [holding])
        decision = decide(ledger, need)
        if isinstance(decision, Never):
            raise refusal(
                decision, ledger, need, request_words(op.model, prompt_tokens, answer_tokens, tower_bytes)
            )

    def extend_reservation(self, model: str, request: str, tokens: int, max_tokens: int) -> bool:
        """Extend a request's reservation if it is nearly used up and memory has room. Return True if the
        request, which has grown to `tokens` of at most `max_tokens` tokens, can continue.

        If there is no room, later calls try again. Return False if the reservation is used up and this call
        could not extend it.
        """
        reservation = self._reserved.get(model, request)
        if reservation is None or reservation.tokens >= max_tokens:
            return True
        if reservation.is_extension_due(tokens) and (entry := self._entry(model)) is not None:
            ledger = self._ledger()
            more = min(max(reservation.tokens, tokens) + EXTEND_BY_TOKENS, max_tokens)
            fits = decide(ledger, self._request_need(entry, more, request))
            if isinstance(fits, Fits):
                if fits != Fits():
                    self.relieve(fits)
                reservation.extend(more)
        return tokens < reservation.tokens

    def _entry(self, model: str) -> ModelEntry | None:
        return next((tenant.entry for tenant in self.tenants() if tenant.entry.name == model), None)

    def _request_need(
        self, entry: ModelEntry, tokens: int, request: str | None = None, tower_bytes: int = 0
    ) -> Need:
        """Return the memory that a new request of `tokens` tokens needs, or that `request` needs to grow to
        `tokens` tokens. The vision tower takes `tower_bytes` for the images of a new request.
        """
        expected = self.forecast(entry)
        count, most_tokens = self._reserved.count(entry.name), self._reserved.most_tokens(entry.name)
        more_requests = self._reserved.get(entry.name, request) is None
        before = expected.requests_bytes(count, most_tokens)
        after = expected.requests_bytes(count + more_requests, max(tokens, most_tokens))
        running_bytes = self._reserved.tower_bytes(entry.name)  # towers run one after the other
        more_bytes = max(tower_bytes - running_bytes, 0)
        alone_bytes = expected.requests_bytes(1, tokens) + tower_bytes
        return Need(after - before + more_bytes, alone_bytes, staying=entry.name)

    def free_bytes(self) -> int:
        """Return how many bytes can still be reserved, within both the engine's limit and the memory that is
        available on the machine; at least 0.
        """
        return max(self._ledger().free_bytes, 0)

    # --- the ledger ---

    def use(self, kv_bytes: int, prompt_cache_bytes: int) -> MemoryUse:
        """Return the memory of weights, keys and values, reservations and prompt cache, for status and
        metrics. `kv_bytes` and `prompt_cache_bytes` are copied into the result.
        """
        held = [self._holding(tenant) for tenant in self.tenants()]
        shared = {tenant.shared: tenant.shared_bytes for tenant in self.tenants() if tenant.shared}
        own = sum(t.bytes - (t.shared_bytes if t.shared else 0) for t in self.tenants())
        weights = own + sum(shared.values())
        return MemoryUse(weights, kv_bytes, sum(h.reserved_bytes for h in held), prompt_cache_bytes)

    def _ledger(self) -> Ledger:
        holdings = [self._holding(tenant) for tenant in self.tenants()]
        if self._loading is not None:
            holdings.append(self._loading)
        self._last_reading = self._read()
        return Ledger(self._limit_bytes, ENGINE_BYTES, self._last_reading, holdings)

    def _holding(self, tenant: Tenant) -> Holding:
        name, expected = tenant.entry.name, self.forecast(tenant.entry)
        self._reserved.retain(name, tenant.requests)
        if expected.kv is None:
            reserved = expected.requests_bytes(min(len(tenant.requests), 1), 0)
        else:
            count, most_tokens = self._reserved.count(name), self._reserved.most_tokens(name)
            reserved = expected.requests_bytes(count, most_tokens) + self._reserved.tower_bytes(name)
        bytes_ = tenant.bytes + expected.tokenizer_bytes
        return Holding(
            name,
            bytes_,
            reserved,
            bool(tenant.requests),
            tenant.last_used_s,
            tenant.awaited,
            tenant.shared,
            tenant.shared_bytes + expected.tokenizer_bytes if tenant.shared else 0,
        )

    def _decide(self, ledger: Ledger, need: Need, ask: RefusalWords, leaving: Collection[str] = ()) -> Fits:
        decision = decide(ledger, need, leaving)
        if isinstance(decision, Fits):
            return decision
        error = refusal(decision, ledger, need, ask)
        if isinstance(decision, Never):
            raise error
        raise MustWait(error, held_by_requests=bool(decision.busy))
