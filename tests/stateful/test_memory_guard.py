"""Check the memory guard's promises while models, requests and other programs take and release memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mlx_server.engine.errors import InsufficientMemory
from mlx_server.engine.memory.guard import Files, MemoryGuard, Tenant
from mlx_server.engine.memory.ledger import GIB, Fits, MemoryReading, kept_free_bytes
from mlx_server.engine.memory.refusals import MustWait
from mlx_server.memory_forecast.forecast import ENGINE_BYTES
from mlx_server.memory_forecast.weights import Arithmetic
from mlx_server.model_store import ModelEntry
from mlx_server.model_store.adapters import Adapter
from mlx_server.model_store.adapters.settings import AdapterSettings
from mlx_server.protocol import Generate
from tests.unit.mlx_server.published_models import CONFIGS, headers

TOTAL, LIMIT = 24 * GIB, 20 * GIB
BASES = ("Llama-3.2-1B", "Qwen3-4B", "Llama-3.1-8B", "phi-4", "Llama-3.1-70B")
ADAPTED = ("Llama-3.1-8B:pirate", "Llama-3.1-8B:poet", "phi-4:poet")
MODELS = BASES + ADAPTED
FILES = {
    name: Files(
        CONFIGS[name] | {"quantization": {"bits": 4, "group_size": 64}}, headers(CONFIGS[name], bits=4)
    )
    for name in BASES
}


def entry(name: str) -> ModelEntry:
    base, _, adapter = name.partition(":")
    plain = ModelEntry(name, Path(base), "generate", 1, 1, 0.0, "mlx", "llama", "", "", 131072, digest=name)
    settings = AdapterSettings("mlx-lm", "lora", 8, 1.0)
    added = Adapter(Path(adapter), settings, 0, 200 * 1024**2, 0, adapter, 0.0) if adapter else None
    return replace(plain, weights_id=base, adapter=added)


class GuardMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loaded: dict[str, dict[str, int]] = {}  # model → request → tokens
        self.used_s: dict[str, float] = {}
        self.others_bytes = 4 * GIB
        self.now_s = 0.0
        self.number = 0
        arithmetic = Arithmetic(dense_float32=False, fused_attention=True)
        self.guard = MemoryGuard(LIMIT, arithmetic, 512, self.read, lambda of: FILES[str(of.path)])
        self.guard.tenants = lambda: [
            Tenant(
                entry(name),
                self.weights(name),
                tuple(requests),
                self.used_s[name],
                shared=entry(name).weights_id,
                shared_bytes=self.guard.forecast(entry(name)).shared_bytes,
            )
            for name, requests in self.loaded.items()
        ]
        self.guard.relieve = self.evict

    def weights(self, name: str) -> int:
        return self.guard.forecast(entry(name)).resident_bytes

    def taken(self) -> int:
        """Return the bytes in use in the worst case: everything that the guard has promised."""
        requests = sum(
            self.guard.forecast(entry(name)).requests_bytes(len(r), max(r.values(), default=0))
            for name, r in self.loaded.items()
        )
        return ENGINE_BYTES + self.held(self.loaded) + requests

    def held(self, names: Iterable[str]) -> int:
        """Return the bytes of these models, with what they share counted once."""
        entries = [entry(name) for name in names]
        shared = {of.weights_id: self.guard.forecast(of).shared_bytes for of in entries}
        return sum(self.guard.forecast(of).adapter_bytes for of in entries) + sum(shared.values())

    def read(self) -> MemoryReading:
        own = self.taken()
        return MemoryReading(TOTAL, max(TOTAL - self.others_bytes - own, 0), own, own, 0)

    def evict(self, fits: Fits) -> None:
        for name in fits.evict:
            assert not self.loaded[name], "a busy model was evicted"
            del self.loaded[name]

    @rule(name=st.sampled_from(MODELS))
    def load(self, name: str) -> None:
        if name in self.loaded:
            return
        try:
            self.evict(self.guard.before_load(entry(name)))
        except (MustWait, InsufficientMemory):
            return
        self.guard.load_ended()
        self.now_s += 1
        self.loaded[name], self.used_s[name] = {}, self.now_s

    @precondition(lambda self: self.loaded)
    @rule(data=st.data(), prompt=st.integers(1, 30_000), answer=st.integers(1, 30_000))
    def start(self, data: st.DataObject, prompt: int, answer: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.loaded)))
        self.number += 1
        op = Generate(str(self.number), name, "text", prompt="p", max_tokens=answer)
        try:
            self.guard.admit(op, prompt, answer)
        except (MustWait, InsufficientMemory):
            return
        self.loaded[name][op.id] = prompt + answer

    @precondition(lambda self: any(self.loaded.values()))
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(n for n, r in self.loaded.items() if r)))
        del self.loaded[name][data.draw(st.sampled_from(sorted(self.loaded[name])))]

    @rule(gib=st.integers(1, 22))
    def others_take(self, gib: int) -> None:
        self.others_bytes = gib * GIB

    @rule(name=st.sampled_from(MODELS))
    def all_is_quiet_and_whatever_can_ever_fit_is_let_in(self, name: str) -> None:
        for requests in self.loaded.values():
            requests.clear()
        self.others_bytes = GIB
        if name in self.loaded:
            return
        needs = ENGINE_BYTES + self.guard.forecast(entry(name)).load_bytes
        try:
            self.evict(self.guard.before_load(entry(name)))
        except InsufficientMemory:
            assert needs > LIMIT
        else:
            assert needs <= LIMIT
            self.guard.load_ended()

    @invariant()
    def what_was_promised_stays_under_the_limit(self) -> None:
        assert self.taken() <= LIMIT

    @rule(name=st.sampled_from(MODELS))
    def nothing_is_begun_that_the_machine_has_no_room_for(self, name: str) -> None:
        if name in self.loaded:
            return
        try:
            fits = self.guard.before_load(entry(name))
        except (MustWait, InsufficientMemory):
            return
        self.guard.load_ended()
        expected, weights = self.guard.forecast(entry(name)), entry(name).weights_id
        staying = self.loaded.keys() - set(fits.evict)
        needs, leaving = expected.load_bytes, self.held(self.loaded) - self.held(staying)
        if weights in (entry(other).weights_id for other in self.loaded):
            needs -= expected.shared_bytes
            if weights not in (entry(other).weights_id for other in staying):
                leaving -= expected.shared_bytes  # the load holds them
        assert needs <= self.read().available_bytes + leaving - kept_free_bytes(TOTAL)


TestMemoryGuard = GuardMachine.TestCase
TestMemoryGuard.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
