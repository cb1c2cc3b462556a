"""Caches that cannot be cut, of tiny models with random weights, are stored whole and restored exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

mx = pytest.importorskip("mlx.core")

from mlx_lm.models import gemma3_text, jamba, llama, mamba  # noqa: E402

from mlx_server.engine.generation.batch import Batch, Prefilled, Sampled  # noqa: E402
from mlx_server.engine.prompt_cache.disk.folder import BlockFolder  # noqa: E402
from mlx_server.engine.prompt_cache.model_cache import ModelCache, StoredBlocks  # noqa: E402
from mlx_server.engine.prompt_cache.store import BlockStore  # noqa: E402
from mlx_server.memory_forecast.kv_quantization import KvQuantization  # noqa: E402

PROMPT = [(7 * n * n + n) % 60 + 1 for n in range(90)]
ANSWER_TOKENS = 12


def sliding_window() -> Any:
    return gemma3_text.Model(
        gemma3_text.ModelArgs(
            model_type="gemma3_text", hidden_size=32, num_hidden_layers=4, intermediate_size=64,
            num_attention_heads=2, head_dim=16, vocab_size=64, num_key_value_heads=1,
            sliding_window=24, sliding_window_pattern=2,
        )
    )  # fmt: skip


def state_space() -> Any:
    return mamba.Model(
        mamba.ModelArgs(
            model_type="mamba", vocab_size=64, hidden_size=32, intermediate_size=64, state_size=8,
            num_hidden_layers=3, conv_kernel=4, use_bias=False, use_conv_bias=True, time_step_rank=4,
        )
    )  # fmt: skip


def hybrid(width: int = 32) -> Any:
    return jamba.Model(
        jamba.ModelArgs(
            model_type="jamba", hidden_size=width, intermediate_size=64, num_hidden_layers=4,
            num_attention_heads=2, num_key_value_heads=1, attn_layer_offset=1, attn_layer_period=2,
            expert_layer_offset=1, expert_layer_period=2, mamba_d_conv=4, mamba_d_state=8,
            mamba_expand=2, num_experts=1, num_experts_per_tok=1, rms_norm_eps=1e-6,
            max_position_embeddings=512, vocab_size=64, mamba_dt_rank=4,
        )
    )  # fmt: skip


def full_attention() -> Any:
    return llama.Model(
        llama.ModelArgs(
            model_type="llama", hidden_size=32, num_hidden_layers=2, intermediate_size=64,
            num_attention_heads=2, rms_norm_eps=1e-6, vocab_size=64,
        )
    )  # fmt: skip


@pytest.fixture(params=[sliding_window, state_space, hybrid, full_attention], ids=lambda make: make.__name__)
def model(request) -> Any:
    return made(request.param)


def made(make: Callable[[], Any]) -> Any:
    """Return a model with random but reproducible weights."""
    mx.random.seed(3)
    model = make()
    model.set_dtype(mx.float32)
    mx.eval(model.parameters())
    return model


def third_best(logprobs: Any) -> Any:
    """Return the third most probable token: deterministic like greedy, but random weights do not repeat it
    forever.
    """
    return mx.argsort(logprobs, axis=-1)[..., -3]


class Runs:
    """Runs prompts with a batch and a cache, as the runner does."""

    def __init__(self, model: Any, folder: Path, kv: KvQuantization | None = None) -> None:
        self.model, self.kv = model, kv
        self.store = BlockStore(BlockFolder(folder), 1 << 26, 1 << 26)
        self.cache = ModelCache(self.store, "tiny", {}, kv)

    def answers(self, *prompts: Sequence[int]) -> tuple[list[list[int]], list[int]]:
        """Run the prompts together. Return the tokens of each answer, and how many tokens of each prompt were
        cached.
        """
        batch = Batch(self.model, 8, 32, self.kv)
        kept, answers, cached = dict[int, StoredBlocks](), dict[int, list[int]](), list[int]()
        for prompt in prompts:
            find = self.cache.find(prompt)
            caches, had = self.cache.finish_restore(find, self.cache.restore_job(find)()) if find else ([], 0)
            uid = batch.add(prompt, third_best, [], caches, had)
            kept[uid], answers[uid] = StoredBlocks(), []
            cached.append(had)
        while len(batch):
            for outcome in list(batch.step()):
                if isinstance(outcome, Prefilled):
                    self.keep(batch, outcome.uid, kept, outcome.done == outcome.total - 1)
                if isinstance(outcome, Sampled):
                    answers[outcome.uid].append(outcome.token)
                    if len(answers[outcome.uid]) == ANSWER_TOKENS:
                        self.keep(batch, outcome.uid, kept, True)
                        batch.remove(outcome.uid)
        batch.close()
        return list(answers.values()), cached

    def keep(self, batch: Batch, uid: int, kept: dict[int, StoredBlocks], whole: bool) -> None:
        if computed := batch.computed(uid):
            self.cache.store_computed(kept[uid], computed.tokens, computed.caches, computed.row, whole=whole)


@pytest.fixture
def live(model, tmp_path) -> Callable[..., Runs]:
    return lambda folder="kept": Runs(model, tmp_path / folder)


def test_model_state_restored_from_a_snapshot_in_ram_or_on_disk_gives_the_uncached_answer(live):
    (cold,), (had,) = live("cold").answers(PROMPT)
    assert had == 0
    assert len(set(cold)) > 1
    first = live()
    assert first.answers(PROMPT) == ([cold], [0])
    assert first.answers(PROMPT) == ([cold], [len(PROMPT) - 1])  # from RAM
    first.store.persist(10.0)
    assert live().answers(PROMPT) == ([cold], [len(PROMPT) - 1])  # from disk


def test_next_turn_of_a_conversation_reuses_the_snapshot_at_the_end_of_the_last_answer(live):
    first = live()
    (answer,), _ = first.answers(PROMPT)
    turn = [*PROMPT, *answer, 5, 6, 7]
    (cold,), _ = live("cold").answers(turn)
    first.store.persist(10.0)
    again, (had,) = live().answers(turn)
    assert again == [cold]
    assert had >= len(PROMPT) + ANSWER_TOKENS - 16


def test_snapshot_restored_into_a_batch_with_uncached_prompts_changes_no_answer(live):
    others = [PROMPT[20:75], PROMPT[3:10], [*PROMPT[:40], 2, 3]]
    cold = [live(f"cold{n}").answers(prompt)[0][0] for n, prompt in enumerate([PROMPT, *others])]
    kept = live()
    kept.answers(PROMPT)
    kept.answers(others[0])
    answers, had = kept.answers(PROMPT, *others)
    assert answers == cold
    assert had[:3] == [len(PROMPT) - 1, len(others[0]) - 1, 0]
