"""Translate GGUF metadata to `config.json`, as mlx-lm reads it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlx_server.model_store.gguf.families import Sizes, family_of
from mlx_server.model_store.gguf.reader import Header, UnsupportedGguf

_END_OF_GENERATION = (
    "<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|end|>",
    "<end_of_turn>", "<eos>", "<EOT>", "<｜end▁of▁sentence｜>",
)  # fmt: skip
"""Tokens that end an answer even if `eos_token_id` is another one. llama.cpp recognizes them by their text,
too.
"""
_CLASSES = {
    "llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM", "gemma": "GemmaForCausalLM", "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM", "phi": "PhiForCausalLM", "phi3": "Phi3ForCausalLM",
}  # fmt: skip
_ACTIVATIONS = {"phi": "gelu_new", "gemma": "gelu_pytorch_tanh", "gemma2": "gelu_pytorch_tanh"}
_POOLING = {1: "mean_tokens", 2: "cls_token", 3: "lasttoken"}
"""Maps llama.cpp's numbers for the pooling of an embedder to sentence-transformers' names."""
_MODULES = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
_MAX_SIZE = 1 << 24
"""Larger than any dimension of a model, and small enough that a product of three is an exact number."""
_NORMAL = 1
_GEMMA3_1B_LAYERS = 26
"""Number of layers of Gemma 3 1B. Ollama's files of this model name a cap for logits that the model does not
have.
"""
_GEMMA3_SCALED = (34, 48, 62)
"""Numbers of layers of Gemma 3 4B, 12B and 27B. Their positions are scaled by 8, which Ollama's converter
omits.
"""
_LARGEST_LAYERS = {"gemma2": 46, "gemma3": 62}
"""Numbers of layers of the 27B models, which scale attention by hidden size over heads instead of head
dimension.
"""


def model_config(header: Header, rope_factors: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Return the content of `config.json`. Raises UnsupportedGguf if the model cannot be converted, or
    metadata are missing or invalid.

    `rope_factors` has the values of the tensors `rope_freqs`, `rope_factors_long` and `rope_factors_short`,
    as far as the file has them.
    """
    metadata = header.metadata
    architecture = metadata.get("general.architecture")
    family = family_of(architecture)
    read = _Metadata(metadata, str(architecture))
    if metadata.get("split.count", 1) not in (0, 1):
        raise UnsupportedGguf("it is one part of several; join them first with `llama-gguf-split --merge`")
    if read.optional("expert_count", 0) and family.model_type != "qwen3_moe":
        raise UnsupportedGguf(f"it is a mixture of experts of the architecture {architecture!r}")
    embedding = header.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise UnsupportedGguf("it has no matrix of token embeddings; it holds no language model")
    hidden, heads = read.size("embedding_length"), read.size("attention.head_count")
    head_dim = read.size("attention.key_length", hidden // heads)
    if read.size("attention.value_length", head_dim) != head_dim:
        raise UnsupportedGguf("the heads of its keys and values differ in size")
    eos = end_tokens(metadata)
    config: dict[str, Any] = {
        "model_type": family.model_type,
        "architectures": [_CLASSES[family.model_type]],
        "hidden_act": _ACTIVATIONS.get(family.model_type, "silu"),
        "hidden_size": hidden,
        "intermediate_size": read.size("feed_forward_length", read.size("expert_feed_forward_length", 0)),
        "num_hidden_layers": read.size("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": read.size("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "rope_theta": read.number("rope.freq_base", 10000.0),
        "max_position_embeddings": read.size("context_length"),
        "vocab_size": embedding.shape[0],
        "tie_word_embeddings": family.tied or "output.weight" not in header.tensors,
        "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": eos[0] if len(eos) == 1 else eos,
    }
    expected_eps = 1e-6 if family.model_type == "gemma3_text" else None  # Ollama's converter omits it
    norm = "layer_norm_eps" if family.model_type == "phi" else "rms_norm_eps"
    key = "attention.layer_norm_epsilon" if family.model_type == "phi" else "attention.layer_norm_rms_epsilon"
    config[norm] = read.number(key, expected_eps)
    if scaling := _rope_scaling(read, config, rope_factors):
        config["rope_scaling"] = scaling
    config |= _own_figures(read, config, header)
    return config


def sizes_of(config: Mapping[str, Any]) -> Sizes:
    """Return the lengths of the dimensions of a model's tensors, by the letters that stand for them in the
    tables of `families`, such as `h` for the hidden size.
    """
    head, keys = config["head_dim"], config["num_key_value_heads"]
    q, k, f = config["num_attention_heads"] * head, keys * head, config["intermediate_size"]
    sizes = {"h": config["hidden_size"], "q": q, "k": k, "d": head, "f": f, "v": config["vocab_size"]}
    experts = {"e": config.get("num_experts", 0), "m": config.get("moe_intermediate_size", 0)}
    return sizes | experts | {"a": q + 2 * k, "g": 2 * f}


def end_tokens(metadata: Mapping[str, Any]) -> list[int]:
    """Return the ids of the tokens that end an answer; the file's own `eos_token_id` is the first, if it has
    one.
    """
    named = [metadata.get(f"tokenizer.ggml.{key}_token_id") for key in ("eos", "eot", "eom")]
    more = metadata.get("tokenizer.ggml.eos_token_ids")
    named += more if isinstance(more, list) else []
    tokens = metadata.get("tokenizer.ggml.tokens") or ()
    types = metadata.get("tokenizer.ggml.token_type") or ()
    known: list[int] = []
    if isinstance(tokens, list) and isinstance(types, list) and len(types) == len(tokens):
        texts = set(_END_OF_GENERATION)
        known = [i for i, text in enumerate(tokens) if text in texts and types[i] != _NORMAL]
    return list(dict.fromkeys(token for token in (*named, *known) if type(token) is int))


def sentence_files(metadata: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sentence-transformers files that mark a model as an embedder: their JSON contents, by their
    paths in the model's folder. `metadata` are those of the GGUF file. `config` is the content of the
    converted model's `config.json`, which has the number of dimensions of the vectors.

    The result is empty if the GGUF metadata do not say how the vectors of tokens are pooled, as for a model
    that generates text.
    """
    number = metadata.get(f"{metadata.get('general.architecture')}.pooling_type", 0)
    pooling = _POOLING.get(number) if type(number) is int else None
    if pooling is None:
        return {}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(_MODULES)
    ]
    size = {"word_embedding_dimension": config["hidden_size"]}
    return {"modules.json": modules, "1_Pooling/config.json": size | {f"pooling_mode_{pooling}": True}}


def _own_figures(read: _Metadata, config: Mapping[str, Any], header: Header) -> dict[str, Any]:
    """Return the fields of `config.json` that are particular to the model's family, such as the number of
    experts; empty if there are none. Raises UnsupportedGguf if the model has a feature that is not converted.

    `read` reads the GGUF file's metadata, `config` has the fields that are converted already, and `header`
    has the shapes of the tensors.
    """
    kind, head_dim, hidden = config["model_type"], config["head_dim"], config["hidden_size"]
    rotary = read.size("rope.dimension_count", head_dim)
    if kind in ("phi", "phi3"):
        if head_dim * config["num_attention_heads"] != hidden or rotary > head_dim:
            raise UnsupportedGguf("its heads do not fill its hidden size")
        original = read.size("rope.scaling.original_context_length", config["max_position_embeddings"])
        own = {"original_max_position_embeddings": original} if kind == "phi3" else {}
        return {"partial_rotary_factor": rotary / head_dim, **own}
    if rotary not in (
        head_dim,
        hidden // config["num_attention_heads"],
    ):  # Ollama's converter writes the latter
        raise UnsupportedGguf("it turns only a part of each head by its position, which is not converted")
    if kind == "qwen2" and head_dim * config["num_attention_heads"] != hidden:
        raise UnsupportedGguf("its heads do not fill its hidden size")
    if kind == "qwen3_moe":
        return {
            "num_experts": read.size("expert_count"),
            "num_experts_per_tok": read.size("expert_used_count"),
            "moe_intermediate_size": read.size("expert_feed_forward_length", _expert_rows(header)),
            "norm_topk_prob": bool(read.optional("norm_top_k_prob", True)),
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
        }
    if kind not in ("gemma2", "gemma3_text"):
        return {}
    largest = config["num_hidden_layers"] == _LARGEST_LAYERS[read.architecture]
    own = {"query_pre_attn_scalar": hidden // config["num_attention_heads"] if largest else head_dim}
    if kind == "gemma2":
        return own | {
            "attn_logit_softcapping": read.number("attn_logit_softcapping", 50.0),
            "final_logit_softcapping": read.number("final_logit_softcapping", 30.0),
            "sliding_window": read.size("attention.sliding_window", 4096),
        }
    if read.optional("final_logit_softcapping", 0.0) and config["num_hidden_layers"] != _GEMMA3_1B_LAYERS:
        raise UnsupportedGguf("it caps its logits, which gemma3 models do not")
    return own | {
        "rope_theta": read.number("rope.global.freq_base", read.number("rope.freq_base", 1_000_000.0)),
        "rope_local_base_freq": read.number(
            "rope.local.freq_base", read.number("rope.freq_base_swa", 10000.0)
        ),
        "sliding_window": read.size("attention.sliding_window", 512),
        "sliding_window_pattern": _sliding_window_pattern(read),
    }


def _expert_rows(header: Header) -> int | None:
    """Return the intermediate size of an expert's feed-forward network, from the shape of the experts' tensor
    in the first layer; None if the file has no such tensor.
    """
    tensor = header.tensors.get("blk.0.ffn_gate_exps.weight")
    return tensor.shape[1] if tensor is not None and len(tensor.shape) == 3 else None


def _sliding_window_pattern(read: _Metadata) -> int:
    """Return n if every n-th layer attends to the whole context, and the others to a sliding window.

    The metadata have this number, or, from Ollama's converter, a list that says of each layer whether it has
    a window. Raises UnsupportedGguf if the layers have no such regular order.
    """
    pattern = read.optional("attention.sliding_window_pattern", 6)
    if isinstance(pattern, list):
        period = next((i for i, has_window in enumerate(pattern, 1) if not has_window), len(pattern) + 1)
        if any(bool(has_window) != (i % period != 0) for i, has_window in enumerate(pattern, 1)):
            raise UnsupportedGguf("its layers with a sliding window have no regular order")
        return period
    return read.size("attention.sliding_window_pattern", 6)


def _rope_scaling(
    read: _Metadata, config: Mapping[str, Any], factors: Mapping[str, Sequence[float]]
) -> dict[str, Any] | None:
    """Return the scaling of rotary positions in mlx-lm's form, or None without scaling. Raises
    UnsupportedGguf if this kind of scaling is not converted.

    `read` reads the GGUF file's metadata, and `config` has the fields of `config.json` that are converted
    already. `factors` has the values of the tensors `rope_freqs`, `rope_factors_long` and
    `rope_factors_short`, as far as the file has them.
    """
    kind = read.optional("rope.scaling.type", "none")
    longest = config["max_position_embeddings"]
    if long := factors.get("rope_factors_long"):
        return {
            "type": "longrope",
            "long_factor": [*long],
            "short_factor": [*factors.get("rope_factors_short", long)],
        }
    if (free := factors.get("rope_freqs")) and any(factor != 1.0 for factor in free):
        # Llama 3.1's factors. With equal lengths, mlx-lm applies them alone, without a scale.
        scaling = {"type": "longrope", "rope_type": "longrope", "original_max_position_embeddings": longest}
        return scaling | {"long_factor": [*free], "short_factor": [*free]}
    scaled_as_published = (
        config["model_type"] == "gemma3_text" and config["num_hidden_layers"] in _GEMMA3_SCALED
    )
    if scaled_as_published and read.optional("rope.scaling.factor", None) is None:
        return {"type": "linear", "rope_type": "linear", "factor": 8.0}
    if kind == "none" or (kind == "linear" and read.optional("rope.scaling.factor", 1.0) in (0.0, 1.0)):
        return None
    if kind == "linear":
        factor = read.number("rope.scaling.factor")
        return {"type": "linear", "rope_type": "linear", "factor": factor}
    if kind == "yarn" and read.architecture in ("llama", "qwen2", "qwen3", "qwen3moe"):
        original = read.size("rope.scaling.original_context_length", longest)
        factor = read.number("rope.scaling.factor", longest / original)
        return {
            "type": "yarn",
            "rope_type": "yarn",
            "factor": factor,
            "original_max_position_embeddings": original,
        }
    if kind == "longrope" and longest <= read.size("rope.scaling.original_context_length", longest):
        return None
    raise UnsupportedGguf(f"it scales its rotary positions by {str(kind)[:40]!r}, which is not converted")


class _Metadata:
    """Reads the GGUF metadata whose keys begin with the name of one architecture, and checks their values."""

    def __init__(self, metadata: Mapping[str, Any], architecture: str) -> None:
        self.architecture = architecture
        self._metadata = metadata

    def optional(self, key: str, default: Any) -> Any:
        return self._metadata.get(f"{self.architecture}.{key}", default)

    def size(self, key: str, default: int | None = None) -> int:
        """Return the positive whole number under `key`. A list of equal numbers, one per layer, counts as one
        number. Raises UnsupportedGguf if the value is anything else, or is missing without a `default`.
        """
        value = self._value(key, default)
        if isinstance(value, list) and value and all(each == value[0] for each in value):
            value = value[0]
        if type(value) is not int or not (0 < value <= _MAX_SIZE or value == default):
            raise UnsupportedGguf(f"its {self.architecture}.{key} is {str(value)[:40]}, not a size")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """Return the positive number under `key`. Raises UnsupportedGguf if the value is anything else, or is
        missing without a `default`.
        """
        value = self._value(key, default)
        if not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise UnsupportedGguf(
                f"its {self.architecture}.{key} is {str(value)[:40]}, not a positive number"
            )
        return float(value)

    def _value(self, key: str, default: Any) -> Any:
        value = self.optional(key, default)
        if value is None:
            raise UnsupportedGguf(f"its metadata lacks {self.architecture}.{key}")
        return value
