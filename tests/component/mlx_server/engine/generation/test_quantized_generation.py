"""Answers with keys and values in 8 and 4 bits, alone, in a batch and resumed. Texts are not equal: the last
bit of a sum depends on how many rows are computed together, and that bit may decide how a number is
quantized. So the tests compare probabilities.
"""

from __future__ import annotations

import pytest

from mlx_server.protocol import Cancel, Done, Prefill, Ready, Sampling, Token
from tests.component.mlx_server.engine.conftest import CHAT, Engine, chat
from tests.component.mlx_server.engine.test_memory import run_child

pytestmark = [pytest.mark.model, pytest.mark.timeout(240)]

OFF = {"VESTAL_MLX__PROMPT_CACHE_RAM": "0", "VESTAL_MLX__PROMPT_CACHE_DISK": "0"}
STORY = "Tell me a story about a lighthouse."
CAPITAL = "What is the capital of France?"
LONG = " ".join(f"On day {day} a boat came in." for day in range(40)) + " What came in?"


@pytest.fixture(scope="module", params=["8", "4"])
def quantized(request, start) -> Engine:
    engine: Engine = start(
        VESTAL_MLX__KV_BITS=request.param, MLX_PRELOAD_MODELS=CHAT, VESTAL_MLX__MAX_RUNNING="8", **OFF
    )
    engine.wait(lambda e: isinstance(e, Ready))
    return engine


@pytest.mark.parametrize(("bits", "near"), [(8, 0.05), (4, 0.15)])
def test_quantized_kv_logprobs_in_a_batch_or_after_resuming_are_close_to_those_of_a_request_alone(
    home, small_models_dir, bits, near
):
    found = run_child("compares_quantized.py", home, small_models_dir, bits)
    assert found["together"] < near
    assert found["resumed"] < near
    assert found["other_text"] > 0.5  # so far apart they are where something is wrong


def test_quantized_kv_requests_that_join_and_leave_a_running_batch_are_all_answered(quantized):
    quantized.send(chat("stays", STORY, 32), chat("leaves", STORY, 4000), chat("ends", CAPITAL, 8))
    quantized.wait(lambda e: isinstance(e, Token) and e.id == "stays" and e.index == 4)
    quantized.send(chat("joins", LONG, 8))
    quantized.wait(lambda e: isinstance(e, Prefill) and e.id == "joins")
    quantized.send(Cancel("leaves"))
    assert quantized.answer("leaves", Done).reason == "cancelled"
    for id, tokens in (("stays", 32), ("ends", 8), ("joins", 8)):
        assert quantized.answer(id, Done).usage.completion_tokens <= tokens
        assert quantized.text(id).strip()
    steps = [e.done for e in quantized.events if isinstance(e, Prefill) and e.id == "joins"]
    assert len(steps) > 3  # its prompt was processed bit by bit beside the others
    assert not any(line["event"] == "kv_not_quantized" for line in quantized.logged())


def test_request_with_quantized_kv_gives_the_same_text_each_time_it_runs_with_no_other_request(quantized):
    seeded = Sampling(seed=7, temperature=0.9, top_k=40, top_p=0.9)
    for name, sampling in (("greedy", Sampling(temperature=0.0)), ("seeded", seeded)):
        quantized.send(chat(name, STORY, sampling=sampling))
        first = quantized.text(name)
        quantized.send(chat(f"{name} again", STORY, sampling=sampling))
        assert quantized.text(f"{name} again") == first


def test_quantized_kv_answer_that_is_resumed_continues_after_the_emitted_tokens(quantized):
    quantized.send(chat("whole", STORY))
    quantized.text("whole")
    tokens = quantized.tokens("whole")
    for cut in (1, 11):
        emitted = tuple(token.token for token in tokens[:cut])
        quantized.send(chat(f"from {cut}", STORY, emitted=emitted))
        assert quantized.answer(f"from {cut}", Done).usage.completion_tokens == len(tokens)
        rest = quantized.tokens(f"from {cut}")
        assert [token.index for token in rest] == list(range(cut, len(tokens)))


def test_quantized_kv_is_skipped_and_logged_if_the_group_size_does_not_divide_the_head_size(start, engine):
    settings = {"VESTAL_MLX__KV_BITS": "8", "VESTAL_MLX__KV_GROUP_SIZE": "128", "MLX_PRELOAD_MODELS": CHAT}
    quantizing: Engine = start(**settings, **OFF)
    for one in (quantizing, engine):
        one.send(chat("served as computed", CAPITAL))
    assert quantizing.text("served as computed") == engine.text("served as computed")
    (line,) = [line for line in quantizing.logged() if line["event"] == "kv_not_quantized"]
    assert line["model"] == CHAT
    assert "group size 128" in line["cause"]
