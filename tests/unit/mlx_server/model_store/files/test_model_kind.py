"""What a model is for, decided by its files, and the reasons for which an embedder is refused."""

import json

import pytest

from mlx_server.model_store.files import sentence_files
from mlx_server.model_store.files.model_kind import ENCODERS, classify
from mlx_server.model_store.files.sentence_modules import Module, sentence_steps

POOLING = Module("sentence_transformers.models.Pooling", "1_Pooling", {"pooling_mode_cls_token": True})
TRANSFORMER = Module("sentence_transformers.models.Transformer", "", {})
BERT = {"model_type": "bert", "architectures": ["BertModel"]}
DENSE = {"in_features": 4, "out_features": 8, "bias": False}


def dense(**config):
    return Module(
        "sentence_transformers.models.Dense", "2_Dense", DENSE | config, frozenset({"linear.weight"})
    )


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "llama", "architectures": ["LlamaForCausalLM"]},
        {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]},
        {"model_type": "gemma3_text", "architectures": ["Gemma3ForCausalLM"]},
        {},
    ],
)
def test_model_without_files_of_an_embedder_is_a_generating_model(config):
    assert classify(config, (), (), {}).kind == "generate"


@pytest.mark.parametrize(
    ("config", "modules", "front_matter"),
    [
        (BERT, (), {}),
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, (), {}),
        ({"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}, (TRANSFORMER, POOLING), {}),
        (
            {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]},
            (),
            {"pipeline_tag": "feature-extraction"},
        ),
        ({"model_type": "gemma3_text", "architectures": ["Gemma3TextModel"]}, (), {}),
        ({"model_type": "gemma3_text", "use_bidirectional_attention": True}, (), {}),
    ],
)
def test_model_with_files_of_an_embedder_is_an_embedding_model(config, modules, front_matter):
    assert classify(config, modules, (), front_matter).kind == "embed"


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"model_type": "nomic_bert", "moe_every_n_layers": 2}, "moe_every_n_layers"),
        (
            {"model_type": "gemma3_text", "architectures": ["Gemma3TextModel"]}
            | {"use_bidirectional_attention": False},
            "use_bidirectional_attention",
        ),
        ({"model_type": "qwen2", "is_causal": False}, "is_causal"),
        ({"model_type": "modernbert", "hidden_activation": "relu"}, "hidden_activation"),
    ],
)
def test_unimplemented_embedder_variant_is_refused_and_the_reason_names_its_config_field(config, named):
    """In gte-Qwen2, a variant of Qwen2, all tokens see each other; nomic-embed-text-v2 has experts."""
    reason = classify(config, (TRANSFORMER, POOLING), (), {}).reason
    assert reason is not None and named in reason


def test_embedder_with_a_projection_that_no_module_describes_is_refused():
    reason = classify(BERT, (), ("dense.0.weight",), {}).reason
    assert reason == "it has a projection (dense.0) that no module describes"


@pytest.mark.parametrize("model_type", ["mpnet", "deberta-v2", "new"])
def test_embedder_of_unknown_architecture_is_refused_with_an_error_that_names_the_architecture(model_type):
    kind = classify({"model_type": model_type}, (TRANSFORMER, POOLING), (), {})
    assert (kind.kind, kind.encoder) == ("embed", None)
    assert kind.reason == f"its architecture {model_type} is not supported for embeddings"


def test_supported_embedder_is_classified_with_its_encoder_and_without_a_reason_for_refusal():
    bare = Module("sentence_transformers.models.Dense", "2_Dense", DENSE)
    assert classify(BERT, (TRANSFORMER, POOLING, dense()), (), {}) == classify(BERT, (), (), {})
    assert classify(BERT, (TRANSFORMER, POOLING, bare), ("dense.0.weight",), {}).reason is None
    assert classify(BERT, (), (), {}).encoder == ENCODERS["bert"]
    assert classify(BERT, (), (), {}).reason is None


@pytest.mark.parametrize(
    ("config", "modules", "named"),
    [
        ({"hidden_act": "relu"}, (), "hidden_act"),
        ({"position_embedding_type": "relative_key"}, (), "position_embedding_type"),
        ({}, (TRANSFORMER,), "no Pooling"),
        ({}, (TRANSFORMER, Module(POOLING.type, "1_Pooling", {"pooling_mode": "median"})), "'median'"),
        (
            {},
            (TRANSFORMER, Module(POOLING.type, "1_Pooling", {"pooling_mode_odd": True})),
            "pooling_mode_odd",
        ),
        ({}, (TRANSFORMER, POOLING, dense(activation_function="my.Act")), "'my.Act'"),
        ({}, (TRANSFORMER, POOLING, dense(use_residual=True)), "residual"),
        ({}, (TRANSFORMER, POOLING, dense(module_input_name="token_embeddings")), "vector of a text"),
        ({}, (TRANSFORMER, POOLING, dense(in_features=None)), "sizes"),
        ({"hidden_size": 5}, (TRANSFORMER, POOLING, dense()), "takes 4 numbers, not 5"),
        (
            {},
            (TRANSFORMER, POOLING, Module("sentence_transformers.models.Dense", "2_Dense", DENSE)),
            "no weights",
        ),
        ({"rope_parameters": {"rope_type": "yarn"}}, (), "'yarn'"),
        ({"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, (), "'yarn'"),
        ({}, (Module("custom_st.Transformer", "", {}), POOLING), "custom_st.Transformer"),
        ({}, (TRANSFORMER, Module("sentence_transformers.models.LSTM", "1_LSTM", {})), "LSTM"),
    ],
)
def test_embedder_with_an_unsupported_setting_or_module_is_refused_naming_it(config, modules, named):
    reason = classify(BERT | config, modules, (), {}).reason
    assert reason is not None and named in reason


def test_embedder_pooling_modes_and_projections_are_read_in_their_order():
    flags = {f"pooling_mode_{mode}": True for mode in ("mean_tokens", "lasttoken", "cls_token")}
    pooling = Module(POOLING.type, "1_Pooling", flags | {"include_prompt": False})
    normalize = Module("sentence_transformers.models.Normalize", "4_Normalize", {})
    identity = dense(activation_function="torch.nn.modules.linear.Identity")
    steps = sentence_steps((TRANSFORMER, pooling, identity, dense(), normalize), "mean")
    assert steps.pooling == ("cls", "mean", "lasttoken")
    assert not steps.pools_prompt and steps.normalizes
    assert [each.activation for each in steps.projections] == ["identity", "tanh"]


def test_embedder_modules_without_modules_json_are_read_from_their_folders(tmp_path):
    for name, config in (("1_Pooling", {"pooling_mode": "max"}), ("10_Dense", DENSE), ("2_Dense", DENSE)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    found = sentence_files.read_modules(tmp_path, BERT)
    assert [module.path for module in found] == ["", "1_Pooling", "2_Dense", "10_Dense"]
    assert sentence_steps(found, "mean").pooling == ("max",)


def test_embedder_without_a_pooling_configuration_gets_the_default_pooling_of_its_architecture(tmp_path):
    (tmp_path / "config_sentence_transformers.json").write_text("{}")
    for architecture, pooling in (("Qwen3ForCausalLM", "lasttoken"), ("Qwen3Model", "mean")):
        modules = sentence_files.read_modules(tmp_path, {"architectures": [architecture]})
        assert sentence_steps(modules, "").pooling == (pooling,)


def test_embedder_prompt_is_the_one_that_the_default_prompt_name_selects(tmp_path):
    path = tmp_path / "config_sentence_transformers.json"
    prompts = {"query": "query: ", "document": "passage: "}
    for name, prompt in ((None, ""), ("document", "passage: "), ("absent", "")):
        path.write_text(json.dumps({"prompts": prompts, "default_prompt_name": name}))
        assert sentence_files.read_sentence_config(tmp_path).prompt == prompt


@pytest.mark.parametrize(
    ("config", "sentence", "tokenizer", "tokens"),
    [
        ({"model_type": "bert", "max_position_embeddings": 512}, 256, 512, 256),
        ({"model_type": "xlm-roberta", "max_position_embeddings": 514, "pad_token_id": 1}, None, None, 512),
        ({"model_type": "modernbert", "max_position_embeddings": 8192}, None, 512, 512),
        ({"model_type": "qwen3", "max_position_embeddings": 32768}, None, 10**30, 32768),
        ({"model_type": "nomic_bert", "n_positions": 8192}, 8192, None, 8192),
        ({"model_type": "bert"}, None, None, None),
    ],
)
def test_embedder_context_is_the_smallest_limit_in_its_files(tmp_path, config, sentence, tokenizer, tokens):
    if sentence:
        (tmp_path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": sentence}))
    if tokenizer:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": tokenizer}))
    assert sentence_files.context_tokens(tmp_path, config) == tokens


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("---\npipeline_tag: sentence-similarity\n---\n# Model", {"pipeline_tag": "sentence-similarity"}),
        ("# Model", {}),
        ("---\n- a list\n---", {}),
        ("---\na: [b\n---", {}),
        ("---", {}),
    ],
)
def test_front_matter_is_read_from_the_yaml_at_the_head_of_a_models_readme(tmp_path, text, found):
    (tmp_path / "README.md").write_text(text)
    assert sentence_files.front_matter(tmp_path) == found
