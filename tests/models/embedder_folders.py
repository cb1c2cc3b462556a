"""Small embedding models with random weights, as sentence-transformers saves them: a folder for each family.

The weights come from a seed, so that the script which records the reference's vectors and the tests make the
same folders. Imports no MLX and no torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

HIDDEN, INNER, LAYERS, HEADS, WIDTH = 32, 48, 4, 4, 8
"""The sizes of all encoders; WIDTH is that of an attention head."""

SENTENCE = (
    "a model reads texts and makes one vector of each so that near things have vectors with a small angle "
    "between them while far ones do not query passage search document : the river runs past stone houses"
)
WORDS = SENTENCE.split()
SPECIAL = ("[CLS]", "[PAD]", "[SEP]", "[UNK]")
"""The padding token has the number 1, as in RoBERTa."""

TEXTS = (
    "a model",
    "the river runs past stone houses",
    "query : near things have vectors with a small angle between them while far ones do not",
    "unknown words are read too",
    SENTENCE,
    "far",
)
POSITIONS = 64
_ST = "sentence_transformers.models"
Shapes = dict[str, tuple[int, ...]]


def make(family: str, folder: Path) -> Path:
    """Write the model of that family into `folder`, which must not exist, and return it."""
    config, shapes, files = FAMILIES[family]()
    folder.mkdir(parents=True)
    random = np.random.default_rng(sum(family.encode()))
    save_file(
        {name: _values(name, shape, random) for name, shape in shapes.items()}, folder / "model.safetensors"
    )
    _write(folder / "config.json", config)
    _write_tokenizer(folder, opens=family not in DECODERS)
    for name, content in files.items():
        _write(folder / name, content)
    for name, content in files.items():
        if name.endswith("_Dense/config.json"):
            tensors: Shapes = {"linear.weight": (content["out_features"], content["in_features"])}
            if content["bias"]:
                tensors["linear.bias"] = (content["out_features"],)
            values = {key: _values(key, shape, random) for key, shape in tensors.items()}
            save_file(values, folder / name.replace("config.json", "model.safetensors"))
    return folder


def _values(name: str, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """Return weights so large that attention, positions and feed-forward all change the vectors."""
    drawn = random.standard_normal(shape).astype(np.float32)
    if len(shape) == 1:
        is_scale = name.endswith("weight")
        return (1 + 0.2 * drawn if is_scale else 0.2 * drawn).astype(np.float32)
    gain = 1.0 if "embed" in name else 2.4 / np.sqrt(shape[1])
    return (gain * drawn).astype(np.float32)


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1), "utf-8")


def _write_tokenizer(folder: Path, *, opens: bool) -> None:
    """Write a tokenizer of words. It adds a token behind each text, and one before it if it `opens` texts."""
    vocabulary = {word: i for i, word in enumerate((*SPECIAL, *dict.fromkeys(WORDS)))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]" if opens else "$A [SEP]",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"cls_token": "[CLS]", "pad_token": "[PAD]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    _write(
        folder / "tokenizer_config.json",
        names | {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": POSITIONS},
    )


VOCABULARY = len(SPECIAL) + len(dict.fromkeys(WORDS))
_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "max_position_embeddings": POSITIONS,
    "pad_token_id": 1,
}


def _modules(
    pooling: Mapping[str, Any], *dense: Mapping[str, Any], normalizes: bool = True
) -> dict[str, Any]:
    """Return the files that describe the steps after the encoder."""
    names = ["1_Pooling", *(f"{i}_Dense" for i, _ in enumerate(dense, 2))]
    names += [f"{len(names) + 1}_Normalize"] if normalizes else []
    listed = [{"idx": 0, "name": "0", "path": "", "type": f"{_ST}.Transformer"}]
    for i, name in enumerate(names, 1):
        listed.append({"idx": i, "name": str(i), "path": name, "type": f"{_ST}.{name.partition('_')[2]}"})
    files: dict[str, Any] = {"modules.json": listed, "1_Pooling/config.json": dict(pooling)}
    return files | {f"{i}_Dense/config.json": dict(each) for i, each in enumerate(dense, 2)}


def _pooling(*modes: str, **more: Any) -> dict[str, Any]:
    names = {"cls": "cls_token", "lasttoken": "lasttoken", "mean_sqrt_len": "mean_sqrt_len_tokens"}
    flags = {f"pooling_mode_{names.get(mode, f'{mode}_tokens')}": True for mode in modes}
    return {"word_embedding_dimension": HIDDEN, "pooling_mode_mean_tokens": False} | flags | more


def _dense(inputs: int, outputs: int, *, bias: bool, activation: str) -> dict[str, Any]:
    return {"in_features": inputs, "out_features": outputs, "bias": bias, "activation_function": activation}


def _layers(shapes: Shapes, prefix: str) -> Shapes:
    """Return the shapes of one layer for all layers; `prefix` has a place for the layer's number."""
    return {prefix.format(i) + name: shape for i in range(LAYERS) for name, shape in shapes.items()}


def _linear(name: str, outputs: int, inputs: int, *, bias: bool = True) -> Shapes:
    return {f"{name}.weight": (outputs, inputs)} | ({f"{name}.bias": (outputs,)} if bias else {})


def _norm(name: str, *, bias: bool = True, size: int = HIDDEN) -> Shapes:
    shapes: Shapes = {f"{name}.weight": (size,)}
    return shapes | ({f"{name}.bias": (size,)} if bias else {})


def _bert_shapes(positions: int, types: int) -> Shapes:
    attention: Shapes = {}
    for part in ("self.query", "self.key", "self.value", "output.dense"):
        attention |= _linear(f"attention.{part}", HIDDEN, HIDDEN)
    layer = (
        attention
        | _norm("attention.output.LayerNorm")
        | _linear("intermediate.dense", INNER, HIDDEN)
        | _linear("output.dense", HIDDEN, INNER)
        | _norm("output.LayerNorm")
    )
    return {
        "embeddings.word_embeddings.weight": (VOCABULARY, HIDDEN),
        "embeddings.position_embeddings.weight": (positions, HIDDEN),
        "embeddings.token_type_embeddings.weight": (types, HIDDEN),
        **_norm("embeddings.LayerNorm"),
        **_layers(layer, "encoder.layer.{}."),
    }


Made = tuple[dict[str, Any], Shapes, dict[str, Any]]
"""The content of config.json, the shapes of the tensors, and the content of the other JSON files."""


def _bert() -> Made:
    """Return a BERT with all kinds of pooling, one after the other."""
    config = _SIZES | {"model_type": "bert", "architectures": ["BertModel"], "layer_norm_eps": 1e-12}
    pooling = _pooling("cls", "max", "mean", "mean_sqrt_len", "weightedmean", "lasttoken")
    return config, _bert_shapes(POSITIONS, 2), _modules(pooling, normalizes=False)


def _bert_instructed() -> Made:
    """Return a BERT with a prompt that takes no part in the pooling, and a projection with tanh."""
    config = _SIZES | {"model_type": "bert", "architectures": ["BertModel"]}
    tanh = _dense(HIDDEN, 12, bias=True, activation="torch.nn.modules.activation.Tanh")
    prompts = {"prompts": {"query": "query : ", "document": "passage :"}, "default_prompt_name": "query"}
    files = _modules(_pooling("mean", include_prompt=False), tanh)
    return config, _bert_shapes(POSITIONS, 2), files | {"config_sentence_transformers.json": prompts}


def _xlm_roberta() -> Made:
    config = _SIZES | {"model_type": "xlm-roberta", "architectures": ["XLMRobertaModel"]}
    config |= {"type_vocab_size": 1, "layer_norm_eps": 1e-5, "max_position_embeddings": POSITIONS + 2}
    shapes = _bert_shapes(POSITIONS + 2, 1) | _linear("pooler.dense", HIDDEN, HIDDEN)
    return config, shapes, _modules(_pooling("cls")) | {"sentence_bert_config.json": {"max_seq_length": 24}}


def _modernbert() -> Made:
    config = _SIZES | {"model_type": "modernbert", "architectures": ["ModernBertModel"]}
    config |= {"local_attention": 8, "global_attn_every_n_layers": 3, "norm_eps": 1e-5}
    config |= {
        "global_rope_theta": 160000.0,
        "local_rope_theta": 10000.0,
        "cls_token_id": 0,
        "sep_token_id": 2,
    }
    config |= {"bos_token_id": 0, "eos_token_id": 2}
    layer = (
        _norm("attn_norm", bias=False)
        | _linear("attn.Wqkv", 3 * HIDDEN, HIDDEN, bias=False)
        | _linear("attn.Wo", HIDDEN, HIDDEN, bias=False)
        | _norm("mlp_norm", bias=False)
        | _linear("mlp.Wi", 2 * INNER, HIDDEN, bias=False)
        | _linear("mlp.Wo", HIDDEN, INNER, bias=False)
    )
    shapes = {
        "embeddings.tok_embeddings.weight": (VOCABULARY, HIDDEN),
        **_norm("embeddings.norm", bias=False),
        **_layers(layer, "layers.{}."),
        **_norm("final_norm", bias=False),
    }
    del shapes["layers.0.attn_norm.weight"]
    return config, shapes, _modules(_pooling("mean"))


def _nomic_bert() -> Made:
    """Return a Nomic-BERT in the form of its first publication; `NOMIC_IN_TRANSFORMERS` has other names."""
    config = {
        **{"model_type": "nomic_bert", "architectures": ["NomicBertModel"], "vocab_size": VOCABULARY},
        **{"n_embd": HIDDEN, "n_inner": INNER, "n_layer": LAYERS, "n_head": HEADS, "n_positions": POSITIONS},
        **{"layer_norm_epsilon": 1e-12, "activation_function": "swiglu", "rotary_emb_base": 1000},
        **{"rotary_emb_fraction": 1.0, "rotary_emb_interleaved": False, "prenorm": False, "pad_token_id": 1},
        **{"qkv_proj_bias": False, "mlp_fc1_bias": False, "mlp_fc2_bias": False, "type_vocab_size": 2},
    }
    layer = (
        _linear("attn.Wqkv", 3 * HIDDEN, HIDDEN, bias=False)
        | _linear("attn.out_proj", HIDDEN, HIDDEN, bias=False)
        | _linear("mlp.fc11", INNER, HIDDEN, bias=False)
        | _linear("mlp.fc12", INNER, HIDDEN, bias=False)
        | _linear("mlp.fc2", HIDDEN, INNER, bias=False)
        | _norm("norm1")
        | _norm("norm2")
    )
    shapes = {
        "embeddings.word_embeddings.weight": (VOCABULARY, HIDDEN),
        "embeddings.token_type_embeddings.weight": (2, HIDDEN),
        **_norm("emb_ln"),
        **_layers(layer, "encoder.layers.{}."),
    }
    return config, shapes, _modules(_pooling("mean"))


NOMIC_IN_TRANSFORMERS = {
    **_SIZES,
    **{"model_type": "nomic_bert", "architectures": ["NomicBertModel"], "layer_norm_eps": 1e-12},
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0},
}
"""The configuration of the same model as the library transformers names its fields."""


def _decoder(model_type: str, architecture: str, *, bias: bool = False, norms: bool = False) -> Made:
    """Return a language model that embeds with its last token, saved without the prefix `model.`."""
    config = _SIZES | {"model_type": model_type, "architectures": [architecture], "rms_norm_eps": 1e-6}
    config |= {"num_key_value_heads": HEADS // 2, "head_dim": WIDTH, "rope_theta": 10000.0}
    config |= {"tie_word_embeddings": True, "hidden_act": "silu", "bos_token_id": 0, "eos_token_id": 2}
    config |= {"sliding_window": None}
    keys = HEADS // 2 * WIDTH
    layer = (
        _norm("input_layernorm", bias=False)
        | _linear("self_attn.q_proj", HEADS * WIDTH, HIDDEN, bias=bias)
        | _linear("self_attn.k_proj", keys, HIDDEN, bias=bias)
        | _linear("self_attn.v_proj", keys, HIDDEN, bias=bias)
        | _linear("self_attn.o_proj", HIDDEN, HEADS * WIDTH, bias=False)
        | (_norm("self_attn.q_norm", bias=False, size=WIDTH) if norms else {})
        | (_norm("self_attn.k_norm", bias=False, size=WIDTH) if norms else {})
        | _norm("post_attention_layernorm", bias=False)
        | _gated()
    )
    shapes = {
        "embed_tokens.weight": (VOCABULARY, HIDDEN),
        **_layers(layer, "layers.{}."),
        **_norm("norm", bias=False),
    }
    return config, shapes, _modules(_pooling("lasttoken"))


def _gated() -> Shapes:
    return (
        _linear("mlp.gate_proj", INNER, HIDDEN, bias=False)
        | _linear("mlp.up_proj", INNER, HIDDEN, bias=False)
        | _linear("mlp.down_proj", HIDDEN, INNER, bias=False)
    )


def _gemma3() -> Made:
    """Return an EmbeddingGemma: all tokens see each other, within a window in most layers."""
    kinds = ["sliding_attention", "full_attention"] * (LAYERS // 2)
    config = _SIZES | {"model_type": "gemma3_text", "architectures": ["Gemma3TextModel"]}
    config |= {"num_key_value_heads": 1, "head_dim": WIDTH, "rms_norm_eps": 1e-6, "layer_types": kinds}
    config |= {"sliding_window": 8, "use_bidirectional_attention": True, "query_pre_attn_scalar": WIDTH}
    config |= {"rope_theta": 1000000.0, "rope_local_base_freq": 10000.0, "_sliding_window_pattern": 2}
    config |= {"hidden_activation": "gelu_pytorch_tanh", "bos_token_id": 0, "eos_token_id": 2}
    layer = (
        _norm("input_layernorm", bias=False)
        | _linear("self_attn.q_proj", HEADS * WIDTH, HIDDEN, bias=False)
        | _linear("self_attn.k_proj", WIDTH, HIDDEN, bias=False)
        | _linear("self_attn.v_proj", WIDTH, HIDDEN, bias=False)
        | _linear("self_attn.o_proj", HIDDEN, HEADS * WIDTH, bias=False)
        | _norm("self_attn.q_norm", bias=False, size=WIDTH)
        | _norm("self_attn.k_norm", bias=False, size=WIDTH)
        | _norm("post_attention_layernorm", bias=False)
        | _norm("pre_feedforward_layernorm", bias=False)
        | _norm("post_feedforward_layernorm", bias=False)
        | _gated()
    )
    shapes = {
        "embed_tokens.weight": (VOCABULARY, HIDDEN),
        **_layers(layer, "layers.{}."),
        **_norm("norm", bias=False),
    }
    identity = "torch.nn.modules.linear.Identity"
    wide = _dense(HIDDEN, 48, bias=False, activation=identity)
    back = _dense(48, HIDDEN, bias=False, activation=identity)
    prompts = {"prompts": {"document": "passage : "}, "default_prompt_name": "document"}
    more = {"config_sentence_transformers.json": prompts}
    return config, shapes, _modules(_pooling("mean"), wide, back) | more


DECODERS = {
    "qwen3": lambda: _decoder("qwen3", "Qwen3ForCausalLM", norms=True),
    "qwen2": lambda: _decoder("qwen2", "Qwen2ForCausalLM", bias=True),
    "llama": lambda: _decoder("llama", "LlamaForCausalLM"),
    "mistral": lambda: _decoder("mistral", "MistralForCausalLM"),
}
FAMILIES: dict[str, Callable[[], Made]] = {
    "bert": _bert,
    "bert-instructed": _bert_instructed,
    "xlm-roberta": _xlm_roberta,
    "modernbert": _modernbert,
    "nomic_bert": _nomic_bert,
    "gemma3_text": _gemma3,
    **DECODERS,
}
