"""Guessed tokens change no answer, in any mix of requests, and nothing that the prompt cache stores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

mx = pytest.importorskip("mlx.core")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from mlx_lm.models import gemma3_text, llama  # noqa: E402

from mlx_server.engine.generation.batch import Batch, Prefilled, Sampled  # noqa: E402
from mlx_server.engine.generation.drafting import draft_batch, step_costs  # noqa: E402
from mlx_server.engine.generation.drafting.draft_model import DraftModel  # noqa: E402
from mlx_server.engine.generation.drafting.drafter import Draft  # noqa: E402
from mlx_server.engine.generation.sampling import make_processors, make_sampler  # noqa: E402
from mlx_server.engine.grammar.grammars import Grammars  # noqa: E402
from mlx_server.engine.prompt_cache.disk.folder import BlockFolder  # noqa: E402
from mlx_server.engine.prompt_cache.model_cache import ModelCache, StoredBlocks  # noqa: E402
from mlx_server.engine.prompt_cache.store import BlockStore  # noqa: E402
from mlx_server.memory_forecast.kv_quantization import KvQuantization  # noqa: E402
from mlx_server.protocol import Sampling  # noqa: E402

END_OF_TEXT = 261
EIGHT_BITS = KvQuantization(group_size=32, bits=8)


def random_model(seed: int, vocabulary: int) -> Any:
    """Return a model with random but reproducible weights. Its greedy answers soon repeat themselves."""
    mx.random.seed(seed)
    made = llama.Model(
        llama.ModelArgs(
            model_type="llama", hidden_size=64, num_hidden_layers=2, intermediate_size=64,
            num_attention_heads=2, rms_norm_eps=1e-6, vocab_size=vocabulary, tie_word_embeddings=False,
        )
    )  # fmt: skip
    made.set_dtype(mx.float32)
    mx.eval(made.parameters())
    return made


@pytest.fixture(scope="module")
def model() -> Any:
    return random_model(seed=3, vocabulary=48)


@dataclass(frozen=True)
class Asked:
    """One request: it joins the batch when the first request has `after` tokens, and leaves with `tokens`."""

    prompt: Sequence[int]
    sampling: Sampling
    tokens: int
    after: int = 0


@dataclass(frozen=True)
class Outcome:
    answers: list[list[int]]
    steps: int
    guessed: int
    accepted: int
    accepted_of_model: int = 0


def run(
    model: Any,
    asked: Sequence[Asked],
    *,
    drafting: bool,
    kv: KvQuantization | None = None,
    limit: int = 8,
    draft_model: DraftModel | None = None,
) -> Outcome:
    """Run the requests in one batch, and return their answers in order."""
    batch = Batch(model, limit, 32, kv, drafting=drafting, draft_model=draft_model)
    waiting, answers = list(enumerate(asked)), [list[int]() for _ in asked]
    number_of = dict[int, int]()
    steps = 0
    while waiting or len(batch):
        for number, one in list(waiting):
            if not number_of or len(answers[0]) >= one.after or not len(batch):
                uid = batch.add(one.prompt, make_sampler(one.sampling, 0), make_processors(one.sampling))
                number_of[uid] = number
                waiting.remove((number, one))
        for outcome in list(batch.step()):
            if isinstance(outcome, Sampled) and (number := number_of[outcome.uid]) is not None:
                answer = answers[number]
                if len(answer) < asked[number].tokens:
                    answer.append(outcome.token)
                    if len(answer) == asked[number].tokens:
                        batch.remove(outcome.uid)
        steps += 1
    counts = batch.draft_counts
    batch.close()
    return Outcome(answers, steps, counts.guessed, counts.accepted, counts.model_accepted)


GREEDY = Sampling(temperature=0.0)
tokens = st.integers(1, 47)
samplings = st.one_of(
    st.just(GREEDY),
    st.builds(
        Sampling,
        seed=st.integers(0, 9),
        temperature=st.sampled_from([0.05, 0.1, 1.0]),
        top_k=st.sampled_from([0, 4]),
    ),
    st.builds(
        Sampling, temperature=st.just(0.0), repeat_penalty=st.just(1.05), repeat_last_tokens=st.just(8)
    ),
    st.builds(Sampling, temperature=st.just(0.0), logit_bias=st.just(((5, 0.3), (6, -1.0)))),
)
prompts = st.one_of(
    st.lists(tokens, min_size=1, max_size=40),
    st.builds(lambda part, times: part * times, st.lists(tokens, min_size=2, max_size=6), st.integers(2, 6)),
)
requests = st.builds(Asked, prompts, samplings, st.integers(1, 40), st.integers(0, 20))


@pytest.mark.parametrize("kv", [None, EIGHT_BITS], ids=["plain", "quantized"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=st.lists(requests, min_size=1, max_size=6))
def test_answers_with_drafts_equal_answers_without(model, kv, asked):
    drafted = run(model, asked, drafting=True, kv=kv)
    assert drafted.answers == run(model, asked, drafting=False, kv=kv).answers


def test_drafting_from_earlier_text_takes_fewer_model_steps_if_the_text_repeats_itself(model):
    asked = [Asked([3, 9, 4, 7, 11] * 4, GREEDY, 60)]
    drafted, plain = run(model, asked, drafting=True), run(model, asked, drafting=False)
    assert drafted.answers == plain.answers
    assert drafted.accepted > 20
    assert drafted.steps < plain.steps - 15


def test_drafting_pauses_during_a_prefill_and_the_prefill_pace_counts_only_steps_without_drafts(
    model, monkeypatch
):
    """Earlier, with 16 guesses checked in a step, a stream beside a long prompt ran 10 times slower."""
    batch = Batch(model, 8, 16, drafting=True)
    recorded_after: list[tuple[int, int]] = []  # guesses before, and after, each step that was recorded
    before = 0
    monkeypatch.setattr(
        batch._pace,
        "record_step",
        lambda seconds: recorded_after.append((before, batch.draft_counts.guessed)),
    )
    monkeypatch.setattr(type(batch._pace), "knows_step", True)
    batch.add([3, 9, 4, 7, 11] * 4, make_sampler(GREEDY, 0), make_processors(GREEDY))

    def guesses_of_a_step() -> tuple[int, bool]:
        nonlocal before
        before = batch.draft_counts.guessed
        reads = any(isinstance(each, Prefilled) for each in list(batch.step()))
        return batch.draft_counts.guessed - before, reads

    for _ in range(30):
        guesses_of_a_step()
    assert batch.draft_counts.guessed > 20
    late = batch.add(list(range(1, 40)) * 4, make_sampler(GREEDY, 0), make_processors(GREEDY))
    guesses = [guesses_of_a_step() for _ in range(9)]
    assert guesses == [(0, True)] * 9
    batch.remove(late)
    assert sum(guesses_of_a_step()[0] for _ in range(10)) > 0
    assert recorded_after and all(earlier == later for earlier, later in recorded_after)
    batch.close()


def test_drafting_waits_for_sampled_tokens_only_if_at_least_half_of_the_batch_has_repetitive_text(
    model, monkeypatch
):
    """Earlier, waiting for the guesses of one request in eight slowed all requests by a tenth."""
    looked_at: list[int] = []
    own_draft = draft_batch.DraftBatch._own_draft

    def look(batch: draft_batch.DraftBatch, row: int, drawn: int, length: int, by_model: int) -> Draft:
        looked_at.append(row)
        return own_draft(batch, row, drawn, length, by_model)

    monkeypatch.setattr(draft_batch.DraftBatch, "_own_draft", look)
    repeating = Asked([3, 9, 4, 7, 11] * 4, GREEDY, 40)
    drawn_at_random = [
        Asked([5, 6, 7 + n], Sampling(temperature=1.0, seed=n), 40) for n in range(5)
    ]  # 48 tokens: the same three hardly ever follow each other twice
    run(model, [repeating], drafting=True)
    assert len(looked_at) > 3
    looked_at.clear()
    run(model, [repeating, *drawn_at_random], drafting=True)
    assert not looked_at


def test_drafting_changes_no_answer_in_a_batch_whose_requests_accept_different_numbers_of_drafts(model):
    asked = [
        Asked([3, 9, 4, 7, 11] * 4, GREEDY, 50),
        Asked([8, 2, 8, 2, 8, 2, 8], Sampling(seed=1, temperature=0.1), 40, 5),
        Asked([1, 5, 9] * 3, Sampling(seed=4, temperature=0.1), 30, 9),
    ]
    drafted = run(model, asked, drafting=True)
    assert drafted.guessed > drafted.accepted > 10
    assert drafted.answers == run(model, asked, drafting=False).answers


def test_drafting_stores_only_accepted_tokens_in_the_prompt_cache(model, tmp_path: Path):
    """The next turn finds the whole drafted answer in the cache, and continues as without a cache."""
    prompt, more = [3, 9, 4, 7, 11] * 4, [20, 21, 22]
    cache = ModelCache(BlockStore(BlockFolder(tmp_path), 1 << 26, 1 << 26), "tiny", {})
    batch = Batch(model, 8, 32, drafting=True)
    uids = [batch.add(p, make_sampler(GREEDY, 0), []) for p in (prompt, [8, 2, 8, 2, 8, 2, 8])]
    answers: dict[int, list[int]] = {uid: [] for uid in uids}
    while len(answers[uids[0]]) < 64:
        for outcome in list(batch.step()):
            if isinstance(outcome, Sampled):
                answers[outcome.uid].append(outcome.token)
    assert batch.draft_counts.accepted > 0
    for uid in uids:
        computed = batch.computed(uid)
        assert computed is not None
        own = (prompt, [8, 2, 8, 2, 8, 2, 8])[uids.index(uid)] + answers[uid]
        assert list(computed.tokens) == own[: len(computed.tokens)]
        cache.store_computed(StoredBlocks(), computed.tokens, computed.caches, computed.row, whole=True)
    batch.close()
    next_turn = [*prompt, *answers[uids[0]][:60], *more]
    match = cache.find(next_turn)
    assert match is not None
    caches, had = cache.finish_restore(match, cache.restore_job(match)())
    assert had == 80
    warm = Batch(model, 8, 32)
    uid = warm.add(next_turn, make_sampler(GREEDY, 0), [], caches, had)
    restored: list[int] = []
    while len(restored) < 20:
        restored += [o.token for o in warm.step() if isinstance(o, Sampled) and o.uid == uid]
    warm.close()
    assert restored[:20] == run(model, [Asked(next_turn, GREEDY, 20)], drafting=False).answers[0]


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"enum": ["alice", "bob"]},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}},
    },
    "required": ["name", "tags"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def byte_model() -> Any:
    """Return a model over the bytes, for the vocabulary of `Grammars.for_checks`."""
    return random_model(seed=5, vocabulary=262)


def constrained(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    drafting: bool,
    draft_model: DraftModel | None = None,
) -> tuple[list[bytes], int]:
    """Return the answers under SCHEMA, each up to its end token, and the number of steps."""
    batch = Batch(model, 8, 32, drafting=drafting, draft_model=draft_model)
    answers, steps = dict[int, list[int]](), 0
    for number, prompt in enumerate(prompts):
        grammars = Grammars.for_checks()
        grammars._end_tokens = frozenset({END_OF_TEXT})
        sampling = Sampling(seed=number, temperature=1.0)
        uid = batch.add(prompt, make_sampler(sampling, 0), [grammars.make_processor(SCHEMA, [])])
        answers[uid] = []
    while len(batch):
        steps += 1
        for outcome in list(batch.step()):
            if isinstance(outcome, Sampled) and (answer := answers[outcome.uid])[-1:] != [END_OF_TEXT]:
                answer.append(outcome.token)
                if outcome.token == END_OF_TEXT or len(answer) == 120:
                    batch.remove(outcome.uid)
    batch.close()
    return [bytes(token for token in answer if token != END_OF_TEXT) for answer in answers.values()], steps


def test_drafting_takes_fewer_steps_for_text_that_a_grammar_forces(byte_model):
    prompts = [[3, 9, 4, 7, 11] * 4, [1, 2], [9] * 30]
    drafted, steps = constrained(byte_model, prompts, drafting=True)
    plain, plain_steps = constrained(byte_model, prompts, drafting=False)
    assert drafted == plain
    assert all(json.loads(text)["name"] in ("alice", "bob") for text in drafted)
    assert steps < plain_steps
    _, alone = constrained(byte_model, prompts[:1], drafting=True)
    _, plain_alone = constrained(byte_model, prompts[:1], drafting=False)
    assert alone < 0.7 * plain_alone


def test_drafting_drops_a_guess_that_the_grammar_forbids(byte_model):
    """The prompt repeats text that the grammar forbids; llguidance cannot undo a forbidden token."""
    prompt = list(b'{"name":"carol","name":"carol","name":"')
    drafted, _ = constrained(byte_model, [prompt], drafting=True)
    assert drafted == constrained(byte_model, [prompt], drafting=False)[0]
    assert json.loads(drafted[0])["name"] in ("alice", "bob")


def test_drafting_is_off_for_a_model_whose_cache_cannot_be_trimmed():
    """A sliding window forgets what it overwrites, so a wrong guess could not be taken back."""
    mx.random.seed(3)
    sliding = gemma3_text.Model(
        gemma3_text.ModelArgs(
            model_type="gemma3_text", hidden_size=32, num_hidden_layers=4, intermediate_size=64,
            num_attention_heads=2, head_dim=16, vocab_size=64, num_key_value_heads=1,
            sliding_window=24, sliding_window_pattern=2,
        )
    )  # fmt: skip
    asked = [Asked([3, 9, 4, 7, 11] * 4, GREEDY, 40)]
    drafted = run(sliding, asked, drafting=True)
    assert drafted.guessed == 0
    assert drafted.answers == run(sliding, asked, drafting=False).answers


def test_no_tokens_are_drafted_if_the_batch_alone_reaches_the_token_limit_of_a_step(model, monkeypatch):
    """Four requests fill a step of four tokens, so there is no room for a guess."""
    monkeypatch.setattr(step_costs, "MOST_STEP_TOKENS", 4)
    asked = [Asked([3, 9, 4, 7, 11] * 4, GREEDY, 20)] * 4
    assert run(model, asked, drafting=True).guessed == 0
    assert run(model, asked[:1], drafting=True).guessed > 0
