"""Which models read images, decided by their files, and why the others do not."""

import json

import pytest

from mlx_server.model_store.files import model_folder
from mlx_server.model_store.files.image_support import FAMILIES, PROCESSOR_FILES, image_support
from tests.unit.mlx_server.model_store.catalog.test_catalog import write_model

TOWERS = [  # as published folders of these families name them
    "visual.patch_embed.proj.weight",
    "vision_tower.blocks.0.norm1.weight",
    "model.visual.blocks.3.attn.qkv.weight",
    "vision_tower.vision_model.embeddings.patch_embedding.weight",
    "model.vision_model.encoder.layers.0.mlp.fc1.weight",
    "vision_encoder.patch_conv.weight",
]
CONFIG = {"model_type": "qwen2_vl", "vision_config": {"depth": 2}}


@pytest.mark.parametrize("tensor", TOWERS)
def test_model_with_a_vision_tower_and_processor_files_reads_images(tensor: str):
    for name in PROCESSOR_FILES:
        found = image_support(CONFIG, ["model.embed_tokens.weight", tensor], ["config.json", name])
        assert found.reads_images and not found.reason


def test_image_support_of_a_text_only_model_is_false_without_a_reason():
    found = image_support({"model_type": "llama"}, ["model.layers.0.mlp.up_proj.weight"], PROCESSOR_FILES)
    assert (found.reads_images, found.reason) == (False, "")


@pytest.mark.parametrize(
    ("config", "tensors", "files", "reason"),
    [
        (CONFIG | {"model_type": "brand_new_vl"}, TOWERS, PROCESSOR_FILES, "family brand_new_vl"),
        (CONFIG, ["model.visually_named.weight"], PROCESSOR_FILES, "its weights lack the part"),
        (CONFIG, TOWERS, ["config.json"], "no preprocessor_config.json or processor_config.json"),
    ],
)
def test_image_support_of_an_unsupported_vision_model_is_false_with_a_reason(config, tensors, files, reason):
    found = image_support(config, tensors, files)
    assert not found.reads_images and reason in found.reason


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_model_has_vision_only_with_processor_settings_and_its_digest_changes_with_them(
    tmp_path, family: str
):
    folder = write_model(
        tmp_path / family,
        {"w.weight": ("F16", [10, 100], 2000), "vision_tower.p.weight": ("F16", [10, 10], 200)},
        model_type=family,
        vision_config={},
    )
    without = model_folder.read_facts(folder)
    assert "vision" not in without.capabilities and "preprocessor_config.json" in without.no_images_reason
    digests = {without.digest}
    for size in (224, 448):
        (folder / "preprocessor_config.json").write_text(json.dumps({"size": size}))
        facts = model_folder.read_facts(folder)
        assert "vision" in facts.capabilities and not facts.no_images_reason
        digests.add(facts.digest)
    assert len(digests) == 3, "other pixels for the same file are another model to the prompt cache"
