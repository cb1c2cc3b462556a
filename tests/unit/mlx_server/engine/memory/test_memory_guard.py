"""The guard's decisions on loads and requests, and its figures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlx_server.engine.errors import InsufficientMemory
from mlx_server.engine.memory.guard import Files, MemoryGuard, Tenant
from mlx_server.engine.memory.ledger import GIB, MIB, Fits, MemoryReading
from mlx_server.engine.memory.refusals import MustWait
from mlx_server.memory_forecast.kv_quantization import KvQuantization
from mlx_server.memory_forecast.weights import Arithmetic
from mlx_server.model_store import ModelEntry
from mlx_server.model_store.adapters import Adapter
from mlx_server.model_store.adapters.settings import AdapterSettings
from mlx_server.protocol import Generate
from tests.unit.mlx_server.published_models import CONFIGS, headers

METAL = Arithmetic(dense_float32=False, fused_attention=True)


def entry(name: str) -> ModelEntry:
    return ModelEntry(
        name, Path(name), "generate", 0, 10 * MIB, 0.0, "mlx", "llama", "", "", 131072, digest=name
    )  # fmt: skip


def generate(id: str, model: str, max_tokens: int | None = 100, **more: Any) -> Generate:
    return Generate(id, model, "text", prompt="p", max_tokens=max_tokens, **more)


class Machine:
    """A machine with 24 GiB, whose figures follow what is loaded, and a guard."""

    def __init__(self, limit_gib: int = 20) -> None:
        self.available, self.own = 18 * GIB, 100 * MIB
        self.tenants: list[Tenant] = []
        self.relieved: list[Fits] = []
        self.guard = MemoryGuard(limit_gib * GIB, METAL, 512, self.read, self.files)
        self.guard.tenants = lambda: self.tenants
        self.guard.relieve = self.relieved.append

    def read(self) -> MemoryReading:
        return MemoryReading(24 * GIB, self.available, self.own, self.own, 0)

    def files(self, of: ModelEntry) -> Files:
        if of.name not in CONFIGS:
            return Files({"model_type": "unheard-of"}, {})
        return Files(
            CONFIGS[of.name] | {"quantization": {"bits": 4, "group_size": 64}},
            headers(CONFIGS[of.name], bits=4),
        )

    def load(self, name: str, *requests: str, last_used_s: float = 0.0) -> None:
        """Load the model `name`, with this number of requests."""
        taken = self.guard.forecast(entry(name)).resident_bytes
        self.tenants.append(Tenant(entry(name), taken, requests, last_used_s))
        self.own, self.available = self.own + taken, self.available - taken

    def admit(self, op: Generate, prompt_tokens: int = 100) -> None:
        """Admit a request as the runner does, and give it to the model."""
        self.guard.admit(op, prompt_tokens, op.max_tokens or 100_000)
        at = next(n for n, tenant in enumerate(self.tenants) if tenant.entry.name == op.model)
        self.tenants[at] = replace(self.tenants[at], requests=(*self.tenants[at].requests, op.id))


def test_model_load_that_can_never_fit_memory_is_refused_with_figures_and_a_remedy():
    with pytest.raises(InsufficientMemory) as refused:
        Machine().guard.before_load(entry("Llama-3.1-70B"))
    assert not refused.value.retryable
    assert str(refused.value) == (
        "Model Llama-3.1-70B (37.0 GiB of weights) needs 37.5 GiB of memory, 17.5 GiB free of 24.0 GiB, "
        "of which the models may have 20.0 GiB; take a smaller or more strongly quantized model, or raise "
        "mlx.memory_limit."
    )
    assert refused.value.fields["needs_bytes"] > refused.value.fields["limit_bytes"] == 20 * GIB
    assert refused.value.fields["total_bytes"] == 24 * GIB


def test_model_load_evicts_the_least_recently_used_idle_model():
    machine = Machine()
    machine.load("Qwen3-8B", last_used_s=2)
    machine.load("Llama-3.1-8B", last_used_s=1)
    machine.load("Qwen3-4B", last_used_s=3)
    fits = machine.guard.before_load(entry("phi-4"))
    assert fits == Fits(drop_caches=True, evict=("Llama-3.1-8B",))


def test_model_load_treats_the_memory_of_models_that_are_being_unloaded_as_free():
    machine = Machine(limit_gib=10)
    machine.load("Llama-3.1-8B")
    assert machine.guard.before_load(entry("Qwen3-8B"), leaving=["Llama-3.1-8B"]).evict == ()


def test_model_load_uses_the_memory_of_the_unloaded_model_although_other_programs_fill_the_machine():
    """At the limit on the number of models, the load waited in vain for memory that its predecessor held."""
    machine = Machine()
    machine.load("Llama-3.1-8B", last_used_s=2)
    machine.available = 3 * GIB
    with pytest.raises(MustWait):
        machine.guard.before_load(entry("phi-4"), leaving=["Llama-3.1-8B"])  # it takes 8 GiB
    assert machine.guard.before_load(entry("Qwen3-8B"), leaving=["Llama-3.1-8B"]) == Fits()
    machine.guard.load_ended()
    machine.load("Qwen3-4B", last_used_s=1)
    machine.available = 3 * GIB
    fits = machine.guard.before_load(entry("phi-4"), leaving=["Llama-3.1-8B"])
    assert fits == Fits(drop_caches=True, evict=("Qwen3-4B",))


def test_adapter_of_a_loaded_base_model_needs_only_its_own_memory():
    machine = Machine(limit_gib=7)  # the base takes 4.2 GiB
    added = Adapter(Path("a"), AdapterSettings("mlx-lm", "lora", 8, 1.0), 0, 200 * MIB, 0, "a", 0.0)
    base = replace(entry("Llama-3.1-8B"), weights_id="w")
    pirate = replace(base, name="Llama-3.1-8B:pirate", digest="p", adapter=added)
    machine.guard = MemoryGuard(7 * GIB, METAL, 512, machine.read, lambda of: machine.files(base))
    machine.guard.tenants = lambda: machine.tenants
    shared = machine.guard.forecast(base).shared_bytes
    machine.tenants = [Tenant(base, shared, (), 1.0, shared="w", shared_bytes=shared)]
    machine.own, machine.available = machine.own + shared, machine.available - shared
    assert machine.guard.before_load(pirate) == Fits()
    machine.guard.load_ended()
    machine.tenants.append(Tenant(pirate, shared + 200 * MIB, (), 2.0, shared="w", shared_bytes=shared))
    assert machine.guard.use(0, 0).weights_bytes == shared + 200 * MIB
    other = replace(pirate, name="other", digest="o", weights_id="other")
    assert machine.guard.before_load(other).evict == ("Llama-3.1-8B", "Llama-3.1-8B:pirate")


def test_memory_of_a_model_load_in_progress_is_unavailable_to_other_loads_until_that_load_ends():
    machine = Machine(limit_gib=12)
    machine.guard.before_load(entry("phi-4"))
    with pytest.raises(MustWait):
        machine.guard.before_load(entry("Llama-3.1-8B"))
    machine.guard.load_ended()
    assert machine.guard.before_load(entry("Llama-3.1-8B")) == Fits()


def test_admitted_request_reserves_its_kv_memory_until_it_ends():
    machine = Machine(limit_gib=8)
    machine.load("Llama-3.1-8B")  # 4.2 GiB, and 128 KiB a token
    machine.admit(generate("a", "Llama-3.1-8B", max_tokens=16_000))
    with pytest.raises(MustWait) as waiting:
        machine.admit(generate("b", "Llama-3.1-8B", max_tokens=16_000))
    assert waiting.value.held_by_requests
    assert "requests to Llama-3.1-8B hold" in str(waiting.value.refusal)
    with pytest.raises(MustWait):
        machine.guard.check("Llama-3.1-8B", 100, 16_000)
    machine.tenants = [replace(machine.tenants[0], requests=())]
    assert machine.guard.check("Llama-3.1-8B", 100, 16_000) == Fits()
    machine.admit(generate("b", "Llama-3.1-8B", max_tokens=16_000))


def test_short_request_batched_with_a_long_one_needs_as_much_kv_memory_as_the_long_one():
    machine = Machine(limit_gib=8)
    machine.load("Llama-3.1-8B")
    machine.admit(generate("long", "Llama-3.1-8B", max_tokens=14_000))
    with pytest.raises(MustWait):
        machine.admit(generate("short", "Llama-3.1-8B", max_tokens=10))


def test_request_that_cannot_fit_memory_even_alone_is_refused_with_figures():
    machine = Machine(limit_gib=8)
    machine.load("Llama-3.1-8B")
    with pytest.raises(InsufficientMemory, match=r"60000 prompt .* needs .* shorten the prompt") as no:
        machine.admit(generate("huge", "Llama-3.1-8B"), prompt_tokens=60_000)
    assert not no.value.retryable
    assert no.value.fields["prompt_tokens"] == 60_000


def test_request_that_fits_only_without_an_idle_model_evicts_that_model_and_is_admitted():
    machine = Machine(limit_gib=10)
    machine.load("Llama-3.1-8B")
    machine.load("Qwen3-8B")
    machine.admit(generate("a", "Llama-3.1-8B", max_tokens=20_000))
    assert machine.relieved == [Fits(drop_caches=True, evict=("Qwen3-8B",))]


def machine_with_pictures(limit_gib: int) -> Machine:
    """Return a machine that has loaded Gemma 3 with its tower of 27 layers, and computes as a CPU does."""
    machine, tower = Machine(limit_gib), {"hidden_size": 1152, "intermediate_size": 4304, "patch_size": 14}

    def files(of: ModelEntry) -> Files:
        found = machine_files(of)
        return replace(found, config=found.config | {"vision_config": tower})

    machine_files, cpu = machine.files, Arithmetic(dense_float32=True, fused_attention=False)
    machine.guard = MemoryGuard(limit_gib * GIB, cpu, 128, machine.read, files)
    machine.guard.tenants = lambda: machine.tenants
    machine.load("gemma-3-4b")
    machine.available = 40 * GIB
    return machine


PICTURE = (1, 3, 896, 896)
"""4,096 patches: 1 GiB of scores in 16 heads, and 0.6 GiB of hidden states."""


def test_vision_tower_memory_is_reserved_once_for_all_requests_until_their_images_are_computed():
    machine = machine_with_pictures(limit_gib=20)

    def reserved() -> int:
        return machine.guard.use(kv_bytes=0, prompt_cache_bytes=0).promised_bytes

    def admit(id: str, *images: tuple[int, ...]) -> int:
        before = reserved()
        machine.guard.admit(generate(id, "gemma-3-4b"), 300, 100, images)
        machine.tenants[0] = replace(machine.tenants[0], requests=(*machine.tenants[0].requests, id))
        return reserved() - before

    text, one, more = admit("text"), admit("one", PICTURE), admit("more", PICTURE, PICTURE)
    assert 1.5 * GIB < one - text < 1.7 * GIB
    assert more < 0.2 * GIB  # towers run one after the other
    machine.guard.images_computed("gemma-3-4b", "one")
    before = reserved()
    machine.guard.images_computed("gemma-3-4b", "more")
    assert before - reserved() > 1.5 * GIB
    admit("cancelled", PICTURE)
    machine.tenants[0] = replace(machine.tenants[0], requests=("text", "one", "more"))
    assert reserved() < before - 1.5 * GIB


def test_request_with_an_image_too_large_for_memory_is_refused_with_figures():
    machine = machine_with_pictures(limit_gib=16)  # the weights take 14.5 GiB
    machine.guard.admit(generate("text", "gemma-3-4b"), 300, 100)
    asked = generate("image", "gemma-3-4b")
    with pytest.raises(
        InsufficientMemory, match=r"takes 1\.\d GiB to read its largest image.* smaller images"
    ) as no:
        machine.guard.admit(asked, 300, 100, [PICTURE])
    assert not no.value.retryable
    assert 1.5 * GIB < no.value.fields["image_bytes"] < 1.7 * GIB
    with pytest.raises(InsufficientMemory, match="largest image"):
        machine.guard.check_possible(entry("gemma-3-4b"), asked, 300, 100, [PICTURE])
    machine.guard.check_possible(entry("gemma-3-4b"), asked, 300, 100)


def test_memory_need_of_a_model_with_an_unusable_configuration_is_the_size_of_its_weights():
    machine = Machine()
    assert machine.guard.before_load(entry("odd")) == Fits()
    assert machine.guard.forecast(entry("odd")).resident_bytes == 10 * MIB


def test_memory_use_reports_reserved_bytes_until_the_request_ends():
    machine = Machine()
    machine.load("Llama-3.1-8B")
    weights = machine.tenants[0].bytes
    machine.admit(generate("r1", "Llama-3.1-8B"), 4000)
    use = machine.guard.use(kv_bytes=7, prompt_cache_bytes=9)
    assert (use.weights_bytes, use.kv_bytes, use.prompt_cache_bytes) == (weights, 7, 9)
    assert use.promised_bytes >= machine.guard.forecast(entry("Llama-3.1-8B")).requests_bytes(1, 4100)
    machine.tenants = [replace(machine.tenants[0], requests=())]
    assert machine.guard.use(0, 0).promised_bytes == 0


def test_memory_forecast_counts_kv_quantization_until_the_model_proves_unable_to_use_it():
    machine = Machine()
    settings = {"Llama-3.1-8B": KvQuantization(8, 64)}
    guard = MemoryGuard(20 * GIB, METAL, 512, machine.read, machine.files, settings.get)
    computed = machine.guard.forecast(entry("Llama-3.1-8B"))
    assert guard.forecast(entry("Qwen3-8B")) == machine.guard.forecast(entry("Qwen3-8B"))
    quantized = guard.forecast(entry("Llama-3.1-8B"))
    assert quantized.requests_bytes(4, 8000) < 0.7 * computed.requests_bytes(4, 8000)
    guard.cannot_quantize_kv(entry("Llama-3.1-8B"))
    assert guard.forecast(entry("Llama-3.1-8B")) == computed
