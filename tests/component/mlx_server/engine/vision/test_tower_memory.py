"""A vision tower takes at most the forecast memory, and an image that needs too much memory is refused."""

from __future__ import annotations

import base64
import json
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

pytest.importorskip("mlx_vlm")

from transformers import AutoTokenizer

from mlx_server.engine.vision.loading import ImageSupport, read_image_support
from mlx_server.engine.vision.tower import load_tower
from mlx_server.memory_forecast.tower import tower_shape
from mlx_server.memory_forecast.weights import Arithmetic
from mlx_server.protocol import Done, Failed
from tests.component.mlx_server.engine.vision import vision_families, vision_models
from tests.component.mlx_server.engine.vision.vision_engine import VisionEngine, chat

pytestmark = [pytest.mark.model, pytest.mark.timeout(120)]

CPU = Arithmetic(dense_float32=True, fused_attention=False)
ATTEMPTS = 3
"""On a busy machine less memory may be held at once than could be, so the highest of a few peaks counts."""


def enlarge(side: int, width: int, config: dict[str, Any], files: dict[str, Any]) -> None:
    """Give a model a tower of this `width` that reads images of `side` x `side` pixels."""
    tower, processor = config["vision_config"], files["preprocessor_config.json"]
    tower["embed_dim" if "embed_dim" in tower else "hidden_size"] = width
    tower.update(dict.fromkeys(("num_attention_heads", "num_heads") & tower.keys(), 4))
    tower.update({"mlp_ratio": 4} if "mlp_ratio" in tower else {"intermediate_size": 4 * width})
    tower.update({"head_dim": width // 4} if "head_dim" in tower else {})
    match config["model_type"]:
        case "llava" | "gemma3":
            tower["image_size"] = side
            processor["crop_size"] = processor["size"] = {"height": side, "width": side}
        case "lfm2-vl":
            tower["num_patches"] = (side // 8) ** 2
            processor.update(max_image_tokens=(side // 16) ** 2, max_num_patches=(side // 8) ** 2)
        case "pixtral" | "mistral3" | "idefics3" | "smolvlm":
            processor["size"] = {"longest_edge": side}
        case _:
            processor["max_pixels"] = side**2


@pytest.mark.parametrize(
    ("family", "side", "width"),
    [
        *((family, 128, 128) for family in vision_families.FAMILIES),
        ("gemma3", 256, 64),
        ("qwen2_vl", 256, 64),
    ],
)
def test_vision_tower_peak_memory_is_between_half_and_all_of_the_forecast(family, side, width, tmp_path):
    folder = vision_models.write(family, tmp_path / family, change=partial(enlarge, side, width))
    config = json.loads((folder / "config.json").read_text())
    support = read_image_support(folder, config, AutoTokenizer.from_pretrained(folder))
    assert isinstance(support, ImageSupport)
    embeddings = mx.zeros((vision_families.VOCABULARY, vision_families.HIDDEN))
    tower = load_tower(folder, config, lambda tokens: embeddings[tokens], support.image_token)
    mx.eval(tower.model.parameters(), embeddings)
    file = base64.b64encode(vision_models.picture(1, side, side)).decode()
    (picture,) = support.new_reader().read([file])
    assert picture.inputs is not None
    forecast, peak = tower_shape(config, CPU, 4).bytes(picture.pixels), 0
    for _ in range(ATTEMPTS):
        mx.clear_cache()
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        run = tower.begin(picture, picture.inputs)
        while not run.advance(slice_s=0.0):
            pass
        peak = max(peak, mx.get_peak_memory() - before)
        if peak > forecast / 2:
            break
    print(f"{family} {side} {width}: {peak / forecast:.2f}")
    assert forecast / 2 <= peak <= forecast


def test_image_that_needs_more_than_the_memory_limit_is_refused_and_texts_are_served(tmp_path: Path):
    """16,384 patches that attend to each other take 4 GiB on a CPU; earlier, the engine died of that."""
    folder = vision_models.write("gemma3", tmp_path / "gemma3", change=partial(enlarge, 1024, 64))
    engine = VisionEngine([folder], tmp_path / "cache", memory_limit_bytes=3 << 30)
    (text,) = engine.run(chat("text", "gemma3", "Good morning."))
    assert isinstance(text, Done)
    asked = chat("image", "gemma3", vision_models.picture(1), "What?")
    (refused,) = engine.run(asked)
    assert isinstance(refused, Failed)
    assert (refused.code, refused.retryable) == ("insufficient_memory", False)
    assert refused.fields["image_bytes"] > 4 << 30
    assert "to read its largest image" in refused.message and "send smaller images" in refused.message
    checked = engine.check(chat("check", "gemma3", vision_models.picture(1), "What?", check_only=True))
    assert isinstance(checked, Failed) and checked.code == "insufficient_memory"
    engine.close()
