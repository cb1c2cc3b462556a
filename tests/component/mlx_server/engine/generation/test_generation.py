"""Text from a small model, computed in float32 on the CPU, so that results can be compared exactly."""

import pytest
from msgspec.structs import replace

from mlx_server.protocol import Alive, Cancel, Done, Generate, Load, Loaded, Prefill, Sampling, Token
from tests.component.mlx_server.engine.conftest import CHAT, chat

pytestmark = pytest.mark.model

SEEDED = Sampling(seed=7, temperature=0.9, top_k=40, top_p=0.9, repeat_penalty=1.1, presence_penalty=0.1)
STORY = "Tell me a story about a lighthouse."


def test_greedy_chat_with_the_real_model_answers_a_question_correctly(real_engine):
    real_engine.send(chat("capital", "What is the capital of France?", max_tokens=40))
    assert "Paris" in real_engine.text("capital")
    done = real_engine.answer("capital", Done)
    assert done.reason == "stop"  # by the end token, which is not sent
    assert done.usage.completion_tokens == len(real_engine.tokens("capital"))
    assert done.usage.prompt_tokens > 20
    assert done.usage.prefill_s > 0
    assert done.usage.decode_s > 0


def test_answer_reports_prefill_progress_and_numbers_its_tokens_from_zero(engine):
    engine.send(chat("numbered", STORY, max_tokens=5))
    engine.answer("numbered", Done)
    assert [token.index for token in engine.tokens("numbered")] == [0, 1, 2, 3, 4]
    progress = [e for e in engine.events if isinstance(e, Prefill) and e.id == "numbered"]
    assert progress[-1].done == progress[-1].total
    assert engine.answer("numbered", Done).reason == "length"


def test_greedy_text_alone_equals_text_in_a_batch_of_eight(engine):
    topics = [f"Say something about {what}." for what in ("foxes", "the sea", "old maps")]
    for i, topic in enumerate(topics):
        engine.send(chat(f"alone{i}", topic))
        engine.answer(f"alone{i}", Done)
    others = [chat(f"other{i}", f"Count to {i + 3}, slowly.", max_tokens=10 + 3 * i) for i in range(5)]
    engine.send(*(chat(f"batch{i}", topic) for i, topic in enumerate(topics)), *others)
    for i in range(len(topics)):
        assert engine.text(f"batch{i}") == engine.text(f"alone{i}")


def test_seeded_request_generates_the_same_text_alone_and_in_a_batch_with_other_samplers(engine):
    engine.send(chat("seeded", STORY, sampling=SEEDED))
    engine.answer("seeded", Done)
    other_seed = Sampling(seed=8, temperature=0.9, top_k=40, top_p=0.9)
    engine.send(
        chat("seeded again", STORY, sampling=SEEDED),
        chat("other seed", STORY, sampling=other_seed),
        chat("greedy", STORY),
    )
    assert engine.text("seeded again") == engine.text("seeded")
    assert len({engine.text("seeded"), engine.text("other seed"), engine.text("greedy")}) == 3


@pytest.mark.parametrize("sampling", [Sampling(temperature=0.0), SEEDED], ids=["greedy", "seeded"])
def test_answer_resumed_at_any_token_equals_the_uninterrupted_answer(engine, sampling):
    name = f"whole{sampling.seed}"
    engine.send(chat(name, STORY, sampling=sampling))
    whole = engine.text(name)
    tokens = engine.tokens(name)
    cuts = (1, 5, 11, len(tokens) - 1)
    for cut in cuts:
        emitted = tuple(token.token for token in tokens[:cut])
        engine.send(chat(f"{name} from {cut}", STORY, sampling=sampling, emitted=emitted))
    for cut in cuts:
        before = "".join(token.text for token in tokens[:cut])
        assert before + engine.text(f"{name} from {cut}") == whole
        rest = engine.tokens(f"{name} from {cut}")
        assert [token.index for token in rest] == list(range(cut, len(tokens)))
        assert engine.answer(f"{name} from {cut}", Done).usage.completion_tokens == len(tokens)


def test_answer_resumed_with_all_its_tokens_ends_at_once(engine):
    engine.send(chat("finished", STORY, max_tokens=3))
    engine.answer("finished", Done)
    emitted = tuple(token.token for token in engine.tokens("finished"))
    engine.send(chat("finished again", STORY, max_tokens=3, emitted=emitted))
    done = engine.answer("finished again", Done)
    assert (done.reason, done.usage.completion_tokens) == ("length", 3)
    assert engine.tokens("finished again") == []


def test_stop_string_that_spans_tokens_ends_generation(engine):
    engine.send(chat("unstopped", STORY))
    text = engine.text("unstopped")
    second, third = engine.tokens("unstopped")[6:8]
    stop = second.text[-2:] + third.text[:2]
    assert stop in text
    engine.send(chat("stopped", STORY, stop=("no such text", stop)))
    assert engine.text("stopped") == text[: text.index(stop)]
    done = engine.answer("stopped", Done)
    assert done.reason == "stop"
    assert done.usage.completion_tokens < 16


def test_text_held_back_for_a_possible_stop_string_is_sent_when_the_answer_ends(engine):
    engine.send(chat("plain", STORY, max_tokens=6))
    text = engine.text("plain")
    engine.send(chat("held", STORY, max_tokens=6, stop=(text[-3:] + " and no further",)))
    assert engine.text("held") == text
    assert engine.answer("held", Done).text.endswith(text[-3:])


def test_text_completion_begins_with_the_leading_space_of_its_first_word(engine):
    prompt = "The capital of France is"
    engine.send(
        Generate("plain text", CHAT, "text", prompt=prompt, max_tokens=3, sampling=Sampling(temperature=0))
    )
    assert engine.text("plain text").startswith(" ")


def test_cancelled_request_ends_within_one_token_and_leaves_the_engine_idle(real_engine):
    engine = real_engine  # the small model computes dozens of tokens before the cancellation arrives
    engine.send(chat("endless", STORY, max_tokens=2000))
    engine.wait(lambda e: isinstance(e, Token) and e.id == "endless" and e.index == 2)
    engine.send(Cancel("endless"), Load("received", CHAT))
    received = engine.events.index(engine.answer("received", Loaded))
    done = engine.events.index(engine.answer("endless", Done))
    assert engine.events[done].reason == "cancelled"
    assert sum(isinstance(e, Token) and e.id == "endless" for e in engine.events[received:]) <= 1
    assert len(engine.tokens("endless")) < 2000
    engine.wait_for_next(lambda e: isinstance(e, Alive) and not e.working)


def test_prompt_logprobs_equal_the_logprobs_with_which_the_same_tokens_were_generated(engine):
    """lm-eval asks for `echo` with `logprobs`: how probable is each token of this text?"""
    prompt = (5, 6, 7)
    engine.send(Generate("drawn", CHAT, "text", prompt_ids=prompt, top_logprobs=2, max_tokens=40))
    engine.answer("drawn", Done)
    drawn = [
        token.logprobs.drawn.logprob
        for token in engine.events
        if isinstance(token, Token) and token.id == "drawn" and token.logprobs
    ]
    ids = [token.token for token in engine.events if isinstance(token, Token) and token.id == "drawn"]
    text = (*prompt, *ids)
    score = Generate(
        "scored", CHAT, "text", prompt_ids=text, prompt_logprobs=True, top_logprobs=2, max_tokens=0
    )
    engine.send(chat("beside", STORY, max_tokens=20), score)
    done = engine.answer("scored", Done)
    assert (done.reason, done.usage.completion_tokens) == ("length", 0)
    assert done.prompt.ids == text and len(done.prompt.logprobs) == len(text)
    for found, expected in zip(done.prompt.logprobs[len(prompt) :], drawn, strict=True):
        assert found.drawn.logprob == pytest.approx(expected, abs=1e-3)
        assert len(found.top) == 2
    engine.answer("beside", Done)
    engine.send(replace(score, id="goes on", max_tokens=5))
    assert engine.answer("goes on", Done).usage.completion_tokens == 5
    assert engine.answer("goes on", Done).prompt.logprobs == done.prompt.logprobs


def test_prompt_logprobs_of_a_prompt_of_one_token_are_served(engine):
    engine.send(Generate("one", CHAT, "text", prompt_ids=(5,), prompt_logprobs=True, max_tokens=1))
    done = engine.answer("one", Done)
    assert len(done.prompt.logprobs) == 1 and done.usage.completion_tokens == 1


def test_request_with_a_limit_of_zero_tokens_stores_its_prompt_in_the_prompt_cache(engine):
    warm = chat("warm", STORY + " Begin with the weather.", max_tokens=0)
    engine.send(warm)
    done = engine.answer("warm", Done)
    assert (done.reason, done.usage.completion_tokens, engine.text("warm")) == ("length", 0, "")
    engine.send(replace(warm, id="warmed", max_tokens=1))
    assert engine.answer("warmed", Done).usage.cached_tokens >= done.usage.prompt_tokens - 16


def test_logit_bias_excludes_a_token_and_forces_another(engine):
    def first(bias: tuple[tuple[int, float], ...]) -> int:
        name = f"biased {bias}"
        sampling = Sampling(temperature=0.0, logit_bias=bias)
        engine.send(chat(name, STORY, max_tokens=1, sampling=sampling))
        engine.answer(name, Done)
        return next(e.token for e in engine.events if isinstance(e, Token) and e.id == name)

    usual = first(())
    assert first(((usual, -100.0),)) != usual
    assert first(((77, 100.0),)) == 77
