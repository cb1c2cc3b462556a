"""The cache of running answers, whose rows are in groups, is compared with a cache for each request."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

mx = pytest.importorskip("mlx.core")

from mlx.utils import tree_flatten  # noqa: E402
from mlx_lm.models import gemma2, llama, qwen3  # noqa: E402
from mlx_lm.models.base import scaled_dot_product_attention  # noqa: E402

from mlx_server.engine.generation.batch import Batch, Sampled  # noqa: E402
from mlx_server.engine.generation.drafting.draft_model import DraftModel  # noqa: E402
from mlx_server.engine.kv import groups_to_join  # noqa: E402
from mlx_server.engine.kv.grouped_kv import Grouped, GroupedKV  # noqa: E402
from mlx_server.engine.kv.kv_cache import RequestKV  # noqa: E402
from mlx_server.engine.kv.quantized_kv_cache import QuantizedRequestKV  # noqa: E402
from mlx_server.engine.kv.request_caches import supports_groups  # noqa: E402
from mlx_server.engine.layers.attention import ATTENTION, attention, replace_attention  # noqa: E402
from mlx_server.memory_forecast.kv_quantization import KvQuantization  # noqa: E402
from tests.component.mlx_server.engine.generation import test_drafting as drafting  # noqa: E402
from tests.component.mlx_server.engine.kv.test_request_caches import sliding_window, wide_hybrid  # noqa: E402

HEADS, WIDTH, GROUP_SIZE = 2, 32, 32
EIGHT_BITS = KvQuantization(group_size=32, bits=8)


def numbers(seed: int, *shape: int) -> Any:
    return mx.random.normal(shape, key=mx.random.key(seed))


class Requests:
    """A cache in groups, and for each of its requests a cache of its own that receives the same numbers."""

    def __init__(self, bits: int | None) -> None:
        self.bits = bits
        self.alone: list[Any] = []
        self.batch: GroupedKV | None = None

    def join(self, seed: int, lengths: list[int]) -> None:
        """Add requests with these numbers of tokens, which are padded to one length as prompts are."""
        rows = []
        for at, length in enumerate(lengths):
            own, row = self._empty(), self._empty()
            keys, values = numbers(seed + at, 2, 1, HEADS, length, WIDTH)
            for cache in (own, row):
                cache.update_and_fetch(keys, values)
            self.alone.append(own)
            rows.append(row)
        joining = rows[0].merge(rows)
        if self.batch is None:
            self.batch = GroupedKV([joining])
        else:
            self.batch.extend(joining)

    def step(self, seed: int, kept: list[int], width: int) -> None:
        """Compute attention for `width` more tokens of each request, and assert that it is the same as in
        the request's own cache. Then keep only the first tokens of them, `kept` for each row in turn.
        """
        assert self.batch is not None
        rows = len(self.alone)
        queries, keys, values = numbers(seed, 3, rows, HEADS, width, WIDTH)
        mask = self.batch.make_mask(width)
        fetched = self.batch.update_and_fetch(keys, values)
        assert isinstance(fetched[0], Grouped) is (len(self.batch.groups) > 1)
        # Of quantized keys, mlx-lm's function scales the array of queries that it is given.
        out = np.array(attention(queries + 0, *fetched, self.batch, 0.3, mask))
        for row, own in enumerate(self.alone):
            one = slice(row, row + 1)
            own_mask = own.make_mask(width, return_array=False, window_size=None)
            own_fetched = own.update_and_fetch(keys[one], values[one])
            expected = scaled_dot_product_attention(queries[one], *own_fetched, own, 0.3, own_mask)
            np.testing.assert_allclose(out[row], np.array(expected)[0], atol=2e-3 if self.bits else 1e-5)
        dropped = [width - min(kept[row % len(kept)], width) for row in range(rows)]
        if any(dropped):
            self.batch.drop_last(dropped)
            for own, tokens in zip(self.alone, dropped, strict=True):
                own.trim(tokens)

    def leave(self, staying: int) -> None:
        """Remove the requests whose bit in `staying` is 0; at least one stays."""
        assert self.batch is not None
        last = len(self.alone) - 1
        keep = [row for row in range(last + 1) if staying >> row & 1] or [last]
        self.batch.filter(keep)
        self.alone = [self.alone[row] for row in keep]

    def check(self) -> None:
        """Assert that each row equals the request's own cache bit by bit."""
        assert self.batch is not None
        lengths = [own.offset for own in self.alone]
        assert self.batch.offset.tolist() == lengths
        assert [offset for group in self.batch.groups for offset in group.offset.tolist()] == lengths
        assert self.batch.nbytes == sum(group.nbytes for group in self.batch.groups) > 0
        for row, own in enumerate(self.alone):
            extracted = self.batch.extract(row)
            assert extracted.offset == own.offset
            for one, other in zip(_arrays(extracted), _arrays(own), strict=True):
                np.testing.assert_array_equal(one, other)
        with pytest.raises(IndexError):
            self.batch.locate(len(self.alone))

    def _empty(self) -> Any:
        return RequestKV() if self.bits is None else QuantizedRequestKV(GROUP_SIZE, self.bits)


def _arrays(cache: Any) -> list[np.ndarray]:
    stored = tree_flatten((cache.keys, cache.values))
    return [np.array(array[..., : cache.offset, :]) for _, array in stored]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("join"), st.lists(st.integers(1, 60), min_size=1, max_size=3)),
        st.tuples(st.just("step"), st.lists(st.integers(1, 3), min_size=1, max_size=5)),
        st.tuples(st.just("leave"), st.integers(0, 255)),
    ),
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(
    bits=st.sampled_from([None, 8]),
    cheap_tokens=st.sampled_from([0, 100, 2048]),
    first=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    steps=steps,
)
def test_cache_in_groups_after_any_operations_equals_separate_caches_of_its_requests(
    bits, cheap_tokens, first, steps
):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(groups_to_join, "CHEAP_TOKENS", cheap_tokens)
        patch.setattr(groups_to_join, "MOST_GROUPS", 3)
        requests = Requests(bits)
        requests.join(1, first)
        for number, (what, how) in enumerate(steps):
            seed = 100 * (number + 1)
            if what == "join":
                requests.join(seed, how)
            elif what == "step":
                requests.step(seed, how, max(how))
            else:
                requests.leave(how)
            requests.check()


def test_row_much_longer_than_the_others_joins_and_leaves_without_a_copy_of_any_row():
    requests = Requests(None)
    requests.join(1, [30, 40])
    assert requests.batch is not None
    (short,) = requests.batch.groups
    stored = short.keys
    requests.join(2, [3000])
    assert [group.offset.shape[0] for group in requests.batch.groups] == [2, 1]
    assert requests.batch.nbytes < 3 * 256 * 2 * HEADS * WIDTH * 4 + 3328 * 2 * HEADS * WIDTH * 4
    assert short.keys is stored
    requests.leave(0b011)
    assert requests.batch.groups == [short]
    assert short.keys is stored
    requests.check()


def _most_likely(logprobs: Any) -> Any:
    return mx.argmax(logprobs, axis=-1)


def in_groups(patch: pytest.MonkeyPatch, *modules: Any) -> None:
    """Make models of these Python modules compute attention in groups, and join no groups."""
    for module in modules:
        patch.setattr(module, ATTENTION, attention)
    patch.setattr(groups_to_join, "CHEAP_TOKENS", 0)


@settings(max_examples=25, deadline=None)
@given(
    quantized=st.booleans(),
    drafts=st.sampled_from(["none", "from the text", "by a model"]),
    asked=st.lists(
        st.builds(
            drafting.Asked,
            st.lists(st.integers(1, 9), min_size=2, max_size=40),
            drafting.samplings,
            st.integers(1, 30),
            st.integers(0, 20),
        ),
        min_size=2,
        max_size=5,
    ),
)
def test_answers_of_a_batch_in_groups_equal_those_of_a_batch_in_one_array(quantized, drafts, asked):
    model, kv = drafting.random_model(3, 48), EIGHT_BITS if quantized else None
    answers = []
    for in_one_array in (True, False):
        draft = DraftModel(drafting.random_model(5, 48), None, 16) if drafts == "by a model" else None
        with pytest.MonkeyPatch.context() as patch:
            if in_one_array:
                patch.setattr(llama, ATTENTION, scaled_dot_product_attention)
            else:
                in_groups(patch, llama)
            assert supports_groups(model, kv) is not in_one_array
            found = drafting.run(model, asked, drafting=drafts != "none", kv=kv, draft_model=draft)
        answers.append(found.answers)
    assert answers[0] == answers[1]


def test_request_that_joins_a_running_batch_is_in_a_group_of_its_own(monkeypatch):
    in_groups(monkeypatch, llama)
    batch = Batch(drafting.random_model(3, 48), 8, 32)
    batch.add([1, 2, 3], _most_likely, [])
    while not any(isinstance(outcome, Sampled) for outcome in batch.step()):
        pass
    long = batch.add([4] * 20, _most_likely, [])
    uids = [outcome.uid for _ in range(3) for outcome in batch.step() if isinstance(outcome, Sampled)]
    assert long in uids
    caches = batch._generator._generation_batch.prompt_cache
    assert [len(cache.groups) for cache in caches] == [2, 2]
    computed = batch.computed(long)
    assert computed is not None
    assert (computed.row, list(computed.tokens[:20])) == (0, [4] * 20)
    assert computed.caches[0] is caches[0].groups[1]
    batch.close()


def test_models_that_compute_attention_in_their_own_way_keep_their_rows_in_one_array(monkeypatch):
    for module in (llama, gemma2, qwen3):
        monkeypatch.setattr(module, ATTENTION, scaled_dot_product_attention, raising=False)
    common = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 32, "rms_norm_eps": 1e-6}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "vocab_size": 48}
    given = {**common, **heads, "rope_theta": 1e4, "max_position_embeddings": 64, "tie_word_embeddings": True}
    made = []
    for module, name in ((llama, "llama"), (qwen3, "qwen3"), (gemma2, "gemma2")):
        known = {field.name for field in dataclasses.fields(module.ModelArgs)}
        arguments = {key: value for key, value in given.items() if key in known}
        made.append(module.Model(module.ModelArgs(model_type=name, **arguments)))
    assert [supports_groups(model) for model in made] == [False, False, False]
    for model in made:
        replace_attention(model)
    assert [supports_groups(model) for model in made] == [True, True, False], "gemma2 limits its scores"
    assert not supports_groups(sliding_window())
    assert not supports_groups(wide_hybrid())
    unmergeable = SimpleNamespace(make_cache=lambda: [object()])
    assert not supports_groups(unmergeable), "a kind of cache that no batch knows"
