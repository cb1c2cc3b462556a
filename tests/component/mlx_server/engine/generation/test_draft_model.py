"""A draft model that guesses tokens changes no answer, and follows each request's text."""

from __future__ import annotations

from typing import Any

import pytest

mx = pytest.importorskip("mlx.core")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from mlx.utils import tree_map  # noqa: E402

from mlx_server.engine.generation.batch import Batch, Sampled  # noqa: E402
from mlx_server.engine.generation.drafting import draft_model as module  # noqa: E402
from mlx_server.engine.generation.drafting.draft_model import Asked as Wanted  # noqa: E402
from mlx_server.engine.generation.drafting.draft_model import DraftModel  # noqa: E402
from mlx_server.engine.generation.drafting.step_costs import StepCosts  # noqa: E402
from mlx_server.engine.generation.sampling import make_sampler  # noqa: E402
from mlx_server.engine.kv.request_caches import make_request_caches  # noqa: E402
from mlx_server.engine.models.language_loading import _load_draft  # noqa: E402
from mlx_server.engine.models.vocabulary import token_rows  # noqa: E402
from mlx_server.model_store.catalog import entry_of  # noqa: E402
from mlx_server.protocol import Sampling  # noqa: E402
from tests.component.mlx_server.engine.generation.test_drafting import (  # noqa: E402
    EIGHT_BITS,
    GREEDY,
    Asked,
    constrained,
    random_model,
    requests,
    run,
)
from tests.models.adapter_folders import write_base  # noqa: E402

SLICE_TOKENS = 8
HOT = Sampling(seed=5, temperature=1.0)
"""A sampling whose text does not repeat itself, so that it is the draft model that guesses."""


@pytest.fixture(autouse=True)
def guesses_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small draft model takes as long as the small target: on cost, it would be switched off."""
    monkeypatch.setattr(StepCosts, "cost_to_draft", lambda *_: 0.0)


@pytest.fixture(scope="module")
def model() -> Any:
    return random_model(seed=3, vocabulary=48)


def similar(vocabulary: int, noise: float, seed: int = 3) -> Any:
    """Return a model that often, but not always, finds the same tokens likely as that of the same seed."""
    made = random_model(seed, vocabulary)
    mx.random.seed(1)
    made.update(tree_map(lambda x: x + noise * mx.random.normal(x.shape), made.parameters()))
    mx.eval(made.parameters())
    return made


@pytest.fixture(scope="module")
def drafts() -> dict[str, Any]:
    """Draft models: the target itself, one like it, and ones with fewer and with more tokens than it has."""
    return {
        "same": random_model(seed=3, vocabulary=48),
        "similar": similar(vocabulary=48, noise=0.01),
        "fewer tokens": random_model(seed=4, vocabulary=40),
        "more tokens": random_model(seed=4, vocabulary=64),
    }


def draft_of(model: Any, slice_tokens: int = SLICE_TOKENS) -> DraftModel:
    return DraftModel(model, token_rows(model), slice_tokens)


@settings(max_examples=14, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    asked=st.lists(requests, min_size=1, max_size=6),
    draft=st.sampled_from(["same", "similar", "fewer tokens", "more tokens"]),
    slice_tokens=st.sampled_from([7, 64]),
    kv=st.sampled_from([None, EIGHT_BITS]),
)
def test_answers_with_a_draft_model_equal_answers_without(model, drafts, asked, draft, slice_tokens, kv):
    guessing = draft_of(drafts[draft], slice_tokens)
    drafted = run(model, asked, drafting=True, kv=kv, draft_model=guessing)
    assert drafted.answers == run(model, asked, drafting=False, kv=kv).answers
    assert guessing.nbytes == 0, "a request that has left holds no keys and values"


def test_draft_model_identical_to_the_target_predicts_most_tokens_of_a_seeded_answer(model, drafts):
    """With the same weights and random keys, almost every guess is right, even at temperature 1."""
    asked = [Asked([3, 9, 4], HOT, 60), Asked([8, 2], Sampling(seed=1, temperature=1.0), 40, 5)]
    drafted = run(model, asked, drafting=True, draft_model=draft_of(drafts["same"]))
    plain = run(model, asked, drafting=False)
    assert drafted.answers == plain.answers
    assert drafted.accepted_of_model > 60
    assert drafted.steps < plain.steps / 2


def test_draft_model_with_fewer_logits_than_the_target_still_predicts_most_tokens_of_a_seeded_answer(model):
    """The noise of a draw has the shape of the vocabulary, so the draft model's logits are filled up."""
    shorter = random_model(seed=3, vocabulary=48)
    weights = shorter.parameters()
    shorter.update(
        {
            "lm_head": {"weight": weights["lm_head"]["weight"][:46]},
            "model": {"embed_tokens": {"weight": weights["model"]["embed_tokens"]["weight"][:46]}},
        }
    )
    known = Sampling(seed=5, temperature=1.0, logit_bias=((46, -100.0), (47, -100.0)))
    asked = [Asked([3, 9, 4], known, 60)]
    drafted = run(model, asked, drafting=True, draft_model=draft_of(shorter))
    assert drafted.answers == run(model, asked, drafting=False).answers
    assert drafted.accepted_of_model > 0.7 * drafted.guessed > 20


def test_draft_model_changes_no_answer_in_a_batch_whose_requests_accept_different_numbers_of_drafts(
    model, drafts
):
    asked = [
        Asked([3, 9, 4, 7, 11] * 4, HOT, 50),
        Asked([8, 2, 8], Sampling(seed=1, temperature=1.0), 40, 5),
        Asked([1, 5, 9] * 9, Sampling(seed=4, temperature=1.0), 30, 9),
    ]
    drafted = run(model, asked, drafting=True, draft_model=draft_of(drafts["similar"]))
    assert drafted.guessed > drafted.accepted_of_model > 40
    assert drafted.answers == run(model, asked, drafting=False).answers


def test_draft_model_guesses_the_same_as_from_scratch_after_rejected_guesses_or_after_falling_behind(
    model, drafts
):
    """Each guess is what the draft model alone predicts for the text, whatever was guessed wrong before."""
    draft = draft_of(drafts["similar"])
    texts: dict[int, list[int]] = {1: [3, 9, 4] * 9, 2: [8, 2], 3: [1, 5, 9, 7] * 12}
    for turn in range(12):
        while draft.read_slice({uid: text[:-1] for uid, text in texts.items()}):
            pass
        asked = [
            Wanted(uid, texts[uid][:-1], texts[uid][-1], 1 + (uid + turn) % 4, make_sampler(GREEDY, 0))
            for uid in texts
            if (uid + turn) % 3  # one of them does not ask
        ]
        for uid, guessed in draft.guess(asked, 48).items():
            assert guessed == alone(drafts["similar"], texts[uid], len(guessed))
            texts[uid] += guessed[: turn % 3] + [turn % 7]
        if turn == 5:
            texts[1] += list(range(40))  # so far behind that it is read in slices again
            assert not draft.can_guess(1, len(texts[1]))
        if turn == 8:
            draft.remove(2)
            texts.pop(2)


def alone(model: Any, text: list[int], length: int) -> list[int]:
    """Return the greedy continuation of a text, each token computed from the whole text."""
    found: list[int] = []
    for _ in range(length):
        found.append(int(mx.argmax(model(mx.array([text + found]))[0, -1]).item()))
    return found


def test_draft_model_prefills_a_prompt_in_slices_while_the_target_model_generates(model, drafts, monkeypatch):
    """No token waits for more than one slice of the draft model, and the first token for none."""
    lengths: list[int] = []
    slow = draft_of(drafts["same"])
    forward = slow._model

    def counted(tokens: Any, **more: Any) -> Any:
        lengths.append(tokens.shape[1])
        return forward(tokens, **more)

    slow._model = counted
    make_caches = module.make_request_caches
    monkeypatch.setattr(module, "make_request_caches", lambda _: make_caches(forward))
    monkeypatch.setattr(module, "supports_groups", lambda _: False)  # it calls the model
    drafted = run(model, [Asked([3, 9, 4, 7, 11] * 20, HOT, 60)], drafting=True, draft_model=slow)
    assert drafted.accepted_of_model > 0
    assert max(lengths) <= module.MOST_MISSING_TOKENS
    assert lengths[:8] == [SLICE_TOKENS] * 8


def test_draft_model_reads_the_prompt_itself_if_the_target_restored_it_from_the_cache(model, drafts):
    """The prompt cache has keys and values of the target only, not of the draft model."""
    prompt = [3, 9, 4, 7, 11] * 8
    caches = make_request_caches(model)
    model(mx.array([prompt[:32]]), cache=caches)
    draft = draft_of(drafts["same"])
    batch, answer = Batch(model, 8, 32, drafting=True, draft_model=draft), list[int]()
    uid = batch.add(prompt, make_sampler(HOT, 0), [], caches, 32)
    while len(answer) < 40:
        answer += [one.token for one in batch.step() if isinstance(one, Sampled)]
    assert draft.can_guess(uid, len(prompt))
    assert batch.draft_counts.model_accepted > 20 and batch.kv_bytes > draft.nbytes > 0
    batch.close()
    assert answer[:40] == run(model, [Asked(prompt, HOT, 40)], drafting=False).answers[0]


def test_draft_model_guesses_nothing_for_text_with_tokens_outside_its_vocabulary(model, drafts):
    asked = [Asked([47, 46, 45, 44], HOT, 30), Asked([3, 9, 4], HOT, 30)]
    drafted = run(model, asked[:1], drafting=True, draft_model=draft_of(drafts["fewer tokens"]))
    assert drafted.accepted_of_model == 0
    assert drafted.answers == run(model, asked[:1], drafting=False).answers


def test_draft_model_pauses_if_a_grammar_rejects_its_guesses(monkeypatch):
    """Guesses that the grammar rejects still count as cost, so the draft model guesses less often."""
    monkeypatch.setattr(StepCosts, "cost_to_draft", lambda *_: 1.0)
    target, prompts = random_model(seed=5, vocabulary=262), [[3, 9, 4, 7, 11] * 4, [1, 2], [9] * 30]
    plain, _ = constrained(target, prompts, drafting=False)
    draft = draft_of(target)
    guessed: list[dict[int, list[int]]] = []
    guess = draft.guess

    def noted(*asked: Any) -> dict[int, list[int]]:
        guessed.append(guess(*asked))
        return guessed[-1]

    monkeypatch.setattr(draft, "guess", noted)
    drafted, steps = constrained(target, prompts, drafting=True, draft_model=draft)
    assert drafted == plain
    assert 0 < len(guessed) < steps / 2, "it pauses"


def test_draft_model_with_damaged_weights_is_logged_and_not_used(model, tmp_path, capsys):
    """A damaged draft makes answers slower, and loses none."""
    entry = entry_of("tiny", write_base(tmp_path / "tiny"))
    weights = tmp_path / "tiny" / "model.safetensors"
    assert token_rows(loaded(_load_draft("large:latest", entry, model))) == 128
    weights.write_bytes(weights.read_bytes()[:-8])
    assert loaded(_load_draft("large:latest", entry, model)) is None
    logged = capsys.readouterr()
    assert "draft_model_not_used" in logged.out + logged.err
    assert "tiny:latest" in logged.out + logged.err


def loaded(loader: Any) -> Any:
    try:
        while True:
            next(loader)
    except StopIteration as end:
        return end.value


def test_draft_model_that_costs_more_than_it_saves_is_switched_off(model, drafts, monkeypatch):
    """After wrong guesses, the request pauses its guesses, for longer each time."""
    monkeypatch.setattr(StepCosts, "cost_to_draft", lambda *_: 1.0)
    asked = [Asked([3, 9, 4], HOT, 120)]
    drafted = run(model, asked, drafting=True, draft_model=draft_of(drafts["more tokens"]))
    assert 0 < drafted.guessed < 40
    assert drafted.answers == run(model, asked, drafting=False).answers
