"""Which models are rerankers, decided by their files, and the reasons for which one is refused."""

from __future__ import annotations

import pytest

from mlx_server.model_store.files import model_folder
from mlx_server.model_store.files.model_kind import ModelKind, classify
from mlx_server.model_store.files.sentence_modules import Module
from mlx_server.model_store.files.weight_files import UnreadableModel
from tests.models.random_rerankers import FAMILIES

ONE_LABEL = {"id2label": {"0": "LABEL_0"}}
RANKS = {"pipeline_tag": "text-ranking"}
QWEN3 = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}
QWEN3_CLASSIFIER = {"model_type": "qwen3", "architectures": ["Qwen3ForSequenceClassification"], **ONE_LABEL}
TRANSFORMER = Module("sentence_transformers.base.modules.transformer.Transformer", "", {})
LOGIT_SCORE = Module("sentence_transformers.cross_encoder.modules.logit_score.LogitScore", "1_LogitScore", {})


def cross_encoder(model_type: str, **config: object) -> dict[str, object]:
    return {"model_type": model_type, "architectures": ["XForSequenceClassification"], **ONE_LABEL, **config}


@pytest.mark.parametrize(
    ("model_type", "encoder"),
    [("bert", "bert"), ("xlm-roberta", "roberta"), ("roberta", "roberta"), ("modernbert", "modernbert")],
)
def test_classifier_with_one_label_is_a_cross_encoder_reranker(model_type, encoder):
    assert classify(cross_encoder(model_type), (), (), {}) == ModelKind("rerank", encoder)


@pytest.mark.parametrize(
    ("modules", "front_matter"),
    [((TRANSFORMER, LOGIT_SCORE), {}), ((), RANKS), ((TRANSFORMER, LOGIT_SCORE), RANKS)],
)
def test_language_model_whose_files_say_that_it_ranks_is_a_reranker(modules, front_matter):
    assert classify(QWEN3, modules, (), front_matter) == ModelKind("rerank")


def test_language_model_whose_files_do_not_say_that_it_ranks_is_a_generating_model():
    assert classify(QWEN3, (), (), {"pipeline_tag": "text-generation"}).kind == "generate"


def test_embedder_whose_readme_says_that_it_ranks_is_still_an_embedding_model():
    pooling = Module("sentence_transformers.models.Pooling", "1_Pooling", {"pooling_mode": "lasttoken"})
    assert classify(QWEN3, (TRANSFORMER, pooling), (), RANKS).kind == "embed"
    assert classify({"model_type": "bert", "architectures": ["BertModel"]}, (), (), RANKS).kind == "embed"


@pytest.mark.parametrize(
    ("config", "front_matter", "reason"),
    [
        (cross_encoder("bert", id2label={"0": "A", "1": "B", "2": "C"}), {},
         "it is a classifier with 3 labels; a reranker has one"),
        ({"model_type": "bert", "architectures": ["BertForSequenceClassification"]}, {},
         "it is a classifier with 2 labels; a reranker has one"),
        (cross_encoder("deberta-v2"), {}, "its architecture deberta-v2 is not supported for reranking"),
        (cross_encoder("bert", position_embedding_type="relative_key"), {},
         "its position_embedding_type is 'relative_key'; only 'absolute' is supported"),
        (QWEN3_CLASSIFIER, {}, "it is a classifier, and its README does not say that it ranks"),
        ({"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}, RANKS,
         "its architecture Qwen2ForCausalLM cannot rank documents"),
        ({"model_type": "qwen3", "architectures": ["JinaForRanking"]}, RANKS,
         "its architecture JinaForRanking cannot rank documents"),
    ],
)  # fmt: skip
def test_reranker_that_cannot_be_served_is_refused_with_the_reason(config, front_matter, reason):
    kind = classify(config, (), (), front_matter)
    assert (kind.kind, kind.reason) == ("rerank", reason)


def test_qwen3_classifier_whose_readme_says_that_it_ranks_is_a_reranker():
    assert classify(QWEN3_CLASSIFIER, (), (), RANKS) == ModelKind("rerank", "decoder")


def test_language_model_reranker_whose_chat_template_is_not_that_of_qwen3_reranker_is_refused(tmp_path):
    FAMILIES["qwen3"](tmp_path)
    assert model_folder.read_facts(tmp_path).kind == "rerank"
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content }}")
    with pytest.raises(UnreadableModel, match="its chat template is not that of Qwen3-Reranker"):
        model_folder.read_facts(tmp_path)


def test_digest_of_a_reranker_changes_with_its_tokens_for_yes_and_no(tmp_path):
    FAMILIES["qwen3"](tmp_path)
    before = model_folder.read_facts(tmp_path).digest
    (tmp_path / "1_LogitScore" / "config.json").write_text('{"true_token_id": 1, "false_token_id": 2}')
    assert model_folder.read_facts(tmp_path).digest != before


def test_rerank_pair_for_a_language_model_has_at_most_8192_tokens(tmp_path):
    """The authors of Qwen3-Reranker use it with 8,192 tokens, although its configuration allows 40,960."""
    FAMILIES["qwen3"](tmp_path)
    old, new = (f'"max_position_embeddings": {tokens}' for tokens in (4096, 40960))
    config = (tmp_path / "config.json").read_text().replace(old, new)
    (tmp_path / "config.json").write_text(config)
    tokenizer = (tmp_path / "tokenizer_config.json").read_text().replace("4096", "131072")
    (tmp_path / "tokenizer_config.json").write_text(tokenizer)
    assert model_folder.read_facts(tmp_path).context_tokens == 8192
