"""Images: the answers are mlx-vlm's, in a batch with texts, resumed, and from the prompt cache."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import msgspec
import numpy as np
import pytest

pytest.importorskip("mlx.core")
pytest.importorskip("mlx_vlm")

from mlx_server.engine.vision import families
from mlx_server.memory_forecast.kv_quantization import KvQuantization
from mlx_server.model_store.files import image_support
from mlx_server.protocol import Accepted, Cancel, Done, Failed, Prefill, Sampling, Token
from tests.component.mlx_server.engine.vision import vision_families, vision_models
from tests.component.mlx_server.engine.vision.vision_engine import VisionEngine, chat
from tests.component.mlx_server.engine.vision.vision_reference import Reference

pytestmark = [pytest.mark.model, pytest.mark.timeout(240)]

TOLERANCE = 2e-4
"""Of log-probabilities. The order of additions differs: slices of 16 tokens, and rotary embeddings of MLX."""
ONE, TWO = vision_models.picture(1), vision_models.picture(2, 32, 64)
FAMILIES = list(vision_families.FAMILIES)
ANSWER_TOKENS = 10


def parts(family: str) -> tuple[str | bytes, ...]:
    """Return the parts of a message with images, as many as mlx-vlm's model of the family reads."""
    return ("Look at ", ONE, ": what?") if family == "llava" else ("Look at ", ONE, " and ", TWO, ": what?")


def prompt_text(family: str) -> str:
    """Return the message as the chat template renders it, with a marker for each image."""
    marker = vision_families.FAMILIES[family]()[2]
    message = "".join(marker if isinstance(part, bytes) else part for part in parts(family))
    return f"<|im_start|>user\n{message}<|im_end|>\n<|im_start|>assistant\n"


def both_directions(tokens: list[int]) -> np.ndarray:
    """Return the mask by which Gemma 3 was trained: tokens of an image see all of it. mlx-vlm's generation
    leaves it causal; its model takes a mask.
    """
    image = vision_families.TOKENS["<image_soft_token>"]
    numbers = np.cumsum([a == image != b for a, b in zip(tokens, [0, *tokens], strict=False)])
    is_image = np.array(tokens) == image
    same = is_image[:, None] & is_image & (numbers[:, None] == numbers)
    return np.tril(np.ones((len(tokens), len(tokens)), dtype=bool)) | same


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    parent = tmp_path_factory.mktemp("models")
    return {family: vision_models.write(family, parent / family) for family in FAMILIES}


@pytest.fixture(scope="module")
def start(folders, tmp_path_factory) -> Iterator[Callable[..., VisionEngine]]:
    """Return a function that starts an engine; its prompt cache is empty unless a folder is given."""
    engines: list[VisionEngine] = []

    def start(cache: Path | None = None, **more: Any) -> VisionEngine:
        engines.append(
            VisionEngine(list(folders.values()), cache or tmp_path_factory.mktemp("cache"), **more)
        )
        return engines[-1]

    yield start
    for engine in engines:
        engine.close()


@pytest.fixture(scope="module")
def engine(start) -> VisionEngine:
    engine: VisionEngine = start()
    return engine


@pytest.fixture(scope="module")
def uncached(start) -> VisionEngine:
    """Return an engine without a prompt cache, which computes every prompt from its first token."""
    engine: VisionEngine = start(caches=False)
    return engine


@pytest.mark.parametrize("family", FAMILIES)
def test_answer_about_an_image_equals_the_answer_of_mlx_vlm_whether_alone_or_in_a_batch_or_resumed(
    family, folders, uncached
):
    engine = uncached
    tokens, logprobs = Reference(folders[family]).answer(
        prompt_text(family),
        [part for part in parts(family) if isinstance(part, bytes)],
        ANSWER_TOKENS,
        both_directions if family == "gemma3" else None,
    )
    (alone,) = engine.run(chat(f"{family} alone", family, *parts(family), top_logprobs=5))
    assert isinstance(alone, Done), alone
    assert engine.tokens(f"{family} alone") == tokens
    events = [e for e in engine.events if isinstance(e, Token) and e.id == f"{family} alone"]
    for event, expected in zip(events, logprobs, strict=True):
        assert event.logprobs is not None
        top = np.array([one.logprob for one in event.logprobs.top])
        assert np.abs(top - np.sort(expected)[::-1][:5]).max() < TOLERANCE

    texts = [chat(f"{family} text {n}", family, f"A text of {n} words. " * (n + 1)) for n in range(2)]
    cold = [engine.answer(text) for text in texts]
    together = [
        msgspec.structs.replace(op, id=f"{op.id} again")
        for op in (texts[0], chat(f"{family} beside", family, *parts(family)), *texts[1:])
    ]
    engine.run(*together)
    drawn = [engine.tokens(op.id) for op in together]
    assert drawn == [cold[0], tokens, *cold[1:]]

    for cut in (1, ANSWER_TOKENS - 1):
        rest = engine.answer(chat(f"{family} cut {cut}", family, *parts(family), emitted=tuple(tokens[:cut])))
        assert rest == tokens[cut:]
    # Without a prompt cache the tower's features are kept, so it ran for each image once.
    assert engine.tower_calls(family) == len([part for part in parts(family) if isinstance(part, bytes)])


@pytest.mark.parametrize("family", ["smolvlm", "qwen2_vl", "gemma3"])
def test_second_turn_about_an_image_does_not_encode_it_again_unless_a_pixel_changed(family, start):
    engine = start()
    first = chat("first", family, *parts(family))
    tokens = engine.answer(first)
    images = len(first.images)
    assert engine.tower_calls(family) == images
    answer = {"role": "assistant", "content": "It is a tide."}
    later = chat(
        "later",
        family,
        *parts(family),
        messages=(*(first.messages or ()), answer, {"role": "user", "content": "And?"}),
    )
    (end,) = engine.run(later)
    (begun,) = engine.run(chat("again", family, *parts(family)))
    assert end.usage.cached_tokens >= begun.usage.prompt_tokens - 16 - len("assistant\n")
    assert engine.tokens("again") == tokens
    assert begun.usage.cached_tokens == begun.usage.prompt_tokens - 1
    assert engine.tower_calls(family) == images

    changed = vision_models.picture(3)
    other = [changed if part is ONE else part for part in parts(family)]
    (end,) = engine.run(chat("changed", family, *other))
    assert end.usage.cached_tokens < 32  # the text before the image
    assert engine.tokens("changed") != tokens
    assert engine.tower_calls(family) == images + 1  # the other picture's features are known


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_5"])
def test_image_prompt_is_restored_from_disk_by_the_next_engine_without_encoding_it(family, start, tmp_path):
    first = start(tmp_path)
    tokens = first.answer(chat("first", family, *parts(family)))
    first.close()
    second = start(tmp_path)
    (end,) = second.run(chat("second", family, *parts(family), emitted=tuple(tokens[:3])))
    assert second.tokens("second") == tokens[3:]
    assert end.usage.cached_tokens >= end.usage.prompt_tokens - 1
    assert second.tower_calls(family) == 0


@pytest.mark.parametrize("family", ["qwen2_vl", "smolvlm"])
def test_quantized_model_with_a_quantized_vision_tower_gives_the_answer_of_mlx_vlm(family, tmp_path):
    folder = vision_models.write(family, tmp_path / family, bits=8)
    files = [part for part in parts(family) if isinstance(part, bytes)]
    tokens, _ = Reference(folder).answer(prompt_text(family), files, ANSWER_TOKENS)
    engine = VisionEngine([folder], tmp_path / "cache")
    assert engine.answer(chat("quantized", family, *parts(family))) == tokens
    engine.close()


@pytest.mark.parametrize("family", ["qwen2_vl", "smolvlm"])
def test_quantized_kv_of_an_image_prompt_is_restored_without_encoding_it_again(family, start):
    engine = start(kv_of=lambda _: KvQuantization(8, 32))
    first = engine.answer(chat("first", family, *parts(family)))
    (end,) = engine.run(chat("again", family, *parts(family)))
    assert engine.tokens("again") == first
    assert end.usage.cached_tokens == end.usage.prompt_tokens - 1
    assert engine.tower_calls(family) == 2


def test_drafting_does_not_change_an_answer_about_an_image(start):
    """Drafted tokens take the positions after the image's, and wrong drafts are dropped."""
    family = "qwen2_5_vl"
    ops = [chat(f"{n}", family, *parts(family), "a b a b a b a b " * 4, max_tokens=48) for n in range(2)]
    plain, drafting = start(), start(drafting=True)
    assert drafting.answer(ops[0]) == plain.answer(ops[1])


def test_json_schema_and_repeat_penalty_apply_to_an_answer_about_an_image(engine):
    asked = parts("qwen2_vl")
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    (end,) = engine.run(chat("json", "qwen2_vl", *asked, json_schema=schema, max_tokens=40))
    text = "".join(e.text for e in engine.events if isinstance(e, Token) and e.id == "json") + end.text
    assert isinstance(json.loads(text)["a"], bool)
    plain = engine.answer(chat("plain", "qwen2_vl", *asked, max_tokens=40))
    penalty = Sampling(temperature=0.0, repeat_penalty=50.0)
    varied = engine.answer(chat("penalty", "qwen2_vl", *asked, max_tokens=40, sampling=penalty))
    assert len(set(varied)) > len(set(plain))


def test_adapter_with_zero_weights_does_not_change_an_answer_about_an_image(folders, tmp_path):
    """An adapter that changes nothing must not change an answer about a picture either."""
    base, adapter = folders["qwen2_vl"], tmp_path / "adapter"
    adapter.mkdir()
    names = [f"language_model.model.layers.{n}.self_attn.q_proj" for n in range(3)]
    ends = {"lora_a": (vision_families.HIDDEN, 4), "lora_b": (4, vision_families.HIDDEN)}
    arrays = {f"{name}.{end}": mx.zeros(shape) for name in names for end, shape in ends.items()}
    mx.save_safetensors(str(adapter / "adapters.safetensors"), arrays)
    lora = {"rank": 4, "scale": 8.0, "dropout": 0.0, "keys": ["self_attn.q_proj"]}
    config = {"fine_tune_type": "lora", "num_layers": 3, "lora_parameters": lora}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    engine = VisionEngine([base], tmp_path / "cache", adapter=adapter)
    asked = parts("qwen2_vl")
    assert engine.answer(chat("with", "adapter", *asked)) == engine.answer(
        chat("without", "qwen2_vl", *asked)
    )
    assert engine.tower_calls("adapter") == 2  # the features are shared, and the keys and values are not
    assert engine.models["adapter:latest"].vision is engine.models["qwen2_vl:latest"].vision
    engine.close()


def test_vision_model_without_the_vision_packages_serves_text_and_says_how_to_install_them(
    start, monkeypatch
):
    monkeypatch.setitem(sys.modules, "mlx_vlm.utils", None)  # so that importing it raises ImportError
    engine = start()
    assert len(engine.answer(chat("text", "llava", "Good morning."))) == ANSWER_TOKENS
    (end,) = engine.run(chat("image", "llava", *parts("llava")))
    assert isinstance(end, Failed)
    assert end.code == "not_supported"
    assert "vestal up" in end.message


def test_every_vision_family_listed_as_supported_is_tested_against_mlx_vlm():
    assert image_support.FAMILIES == set(families.FAMILIES) == {*FAMILIES, "lfm2-vl"}


@pytest.mark.parametrize("fault", ["tower", "processor"])
def test_vision_model_with_a_damaged_vision_part_serves_text_and_names_the_damage(fault, tmp_path):
    folder = vision_models.write("llava", tmp_path / "llava")
    if fault == "processor":
        (folder / "preprocessor_config.json").write_text('{"image_processor_type": "None"}')
    else:
        weights = mx.load(str(folder / "model.safetensors"))
        assert isinstance(weights, dict)
        del weights["multi_modal_projector.linear_1.weight"]
        mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    engine = VisionEngine([folder], tmp_path / "cache")
    assert len(engine.answer(chat("text", "llava", "Good morning."))) == ANSWER_TOKENS
    (end,) = engine.run(chat("image", "llava", *parts("llava")))
    assert isinstance(end, Failed)
    assert end.code == "not_supported"
    assert "image processor" in end.message if fault == "processor" else "linear_1" in end.message
    engine.close()


def test_vision_model_answers_a_request_without_images(engine):
    assert len(engine.answer(chat("text", "qwen2_vl", "Good morning."))) == ANSWER_TOKENS


def test_request_with_a_broken_image_fails_alone(engine):
    ok, broken = engine.run(
        chat("fine", "qwen2_vl", *parts("qwen2_vl")), chat("broken", "qwen2_vl", ONE[:60], "What?")
    )
    assert isinstance(ok, Done)
    assert isinstance(broken, Failed)
    assert broken.code == "invalid_request"
    assert "Image 0" in broken.message


def test_check_only_image_request_returns_its_prompt_token_count_or_refuses_a_broken_image(folders, tmp_path):
    engine = VisionEngine([folders["qwen2_vl"]], tmp_path)
    asked = parts("qwen2_vl")
    accepted = engine.check(chat("check", "qwen2_vl", *asked, check_only=True))
    assert isinstance(accepted, Accepted)
    (end,) = engine.run(chat("run", "qwen2_vl", *asked))
    assert isinstance(end, Done)
    assert accepted.prompt_tokens == end.usage.prompt_tokens
    refused = engine.check(chat("broken", "qwen2_vl", ONE[:60], "What?", check_only=True))
    assert isinstance(refused, Failed)
    assert refused.code == "invalid_request"
    engine.close()


def test_request_cancelled_while_its_images_are_encoded_does_not_affect_another_request(engine):
    asked: list[str | bytes] = ["Look. " * 30, vision_models.picture(7), vision_models.picture(8), "What?"]
    engine.send(chat("cancelled", "smolvlm", *asked))
    engine.turn_until(lambda e: isinstance(e, Prefill) and e.id == "cancelled" and e.done > 0)
    engine.send(Cancel("cancelled"))
    (end,) = engine.run(chat("kept", "smolvlm", *parts("smolvlm")))
    assert isinstance(end, Done)
    assert len(engine.tokens("kept")) == ANSWER_TOKENS
    assert [e.reason for e in engine.events if isinstance(e, Done) and e.id == "cancelled"] == ["cancelled"]


@pytest.mark.parametrize(("family", "slices"), [("smolvlm", 2), ("qwen3_vl", 5)])
def test_stream_gets_a_token_after_each_vision_tower_layer_of_another_request(family, slices, uncached):
    """A stream waits for one layer, not for the whole tower, which Qwen3-VL itself would evaluate at once."""
    stream, picture = f"{family} stream", f"{family} picture"
    uncached.send(chat(stream, family, "Tell me a story.", max_tokens=3000))
    uncached.turn_until(lambda e: isinstance(e, Token) and e.id == stream)
    uncached.tower(family).slice_s = 0.0
    begin = len(uncached.events)
    uncached.send(chat(picture, family, vision_models.picture(11), "What?"))
    uncached.turn_until(lambda e: isinstance(e, Prefill) and e.id == picture and e.done > 0)
    order = [event.id for event in uncached.events[begin:]]
    at = [number for number, id in enumerate(order) if id == picture]
    assert len(at) == slices + 2  # the first one begins the request, and the last one is of the text model
    assert all(stream in order[one:other] for one, other in itertools.pairwise(at[1:]))
    uncached.send(Cancel(stream))
    uncached.run(chat(f"{family} last", family, "Done."))


def test_image_request_whose_text_contains_the_models_image_marker_is_refused(engine):
    (end,) = engine.run(chat("marker", "smolvlm", ONE, "What is <image>?"))
    assert isinstance(end, Failed)
    assert end.code == "invalid_request"
    assert "<image>" in end.message


def test_images_count_as_prompt_tokens_and_truncation_drops_them_with_their_messages(engine):
    (whole,) = engine.run(chat("count", "smolvlm", *parts("smolvlm"), count_only=True))
    assert whole.usage.prompt_tokens > 80
    (message,) = chat("x", "smolvlm", ONE, "Look. " * 8).messages or ()
    answer = {"role": "assistant", "content": "Yes. " * 8}
    images = chat("x", "smolvlm", ONE, TWO, vision_models.picture(5)).images
    long: dict[str, Any] = {"messages": (message, answer, message, answer, message), "images": images}
    (end,) = engine.run(chat("long", "smolvlm", "", **long, context_tokens=160))
    assert isinstance(end, Failed)
    assert end.code == "context_exceeded"
    (end,) = engine.run(chat("shorter", "smolvlm", "", **long, context_tokens=160, truncate=True))
    assert isinstance(end, Done)
    alone = chat("last", "smolvlm", "", messages=(message,), images=images[2:])
    assert engine.answer(alone) == engine.tokens("shorter")
