"""Folders of rerankers with random weights, a few hundred KB each, from a seed: the same ones for the tests
and for the script that records the scores of the reference. It needs numpy and safetensors only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

QUERIES = ("how does the engine restart", "what is a model", "red green blue")
DOCUMENTS = (
    "the engine does restart when the gateway has seen it die",
    "a model is a folder of files",
    "",
    "red and green and blue are the names of what a person sees",
    "no",
    "how is the weather in the north today and what is a river",
    "what does the engine do when the memory is full and a model is read by the gateway " * 4,
    "Déjà vu, 12 % of the files!",
)
HIDDEN, INNER, HEADS, LAYERS, POSITIONS = 32, 64, 4, 2, 72
LABEL = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
IDENTITY = {"activation_fn": "torch.nn.modules.linear.Identity", "version": "4.1.0"}
WORDS = sorted({word for text in (*QUERIES, *DOCUMENTS) for word in text.lower().split()})
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789%!,.?"


class Weights:
    """Draws tensors by name, all from one generator."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self.drawn: dict[str, np.ndarray] = {}

    def linear(self, name: str, rows: int, columns: int, gain: float = 1.5, *, bias: bool = True) -> None:
        self._draw(f"{name}.weight", (rows, columns), gain / columns**0.5)
        if bias:
            self._draw(f"{name}.bias", (rows,), 0.1)

    def embedding(self, name: str, rows: int, columns: int = HIDDEN) -> None:
        self._draw(f"{name}.weight", (rows, columns), 1.0)

    def norm(self, name: str, size: int = HIDDEN, *, bias: bool = True) -> None:
        self._draw(f"{name}.weight", (size,), 0.1, 1.0)
        if bias:
            self._draw(f"{name}.bias", (size,), 0.1)

    def _draw(self, name: str, shape: tuple[int, ...], scale: float, mean: float = 0.0) -> None:
        values = mean + scale * self._random.standard_normal(shape)
        self.drawn[name] = values.astype(np.float32)


def word_tokenizer(specials: list[str], template: list[tuple[str, int]]) -> dict[str, Any]:
    """Return the tokenizer.json of a WordPiece tokenizer whose pairs have the tokens and types of `template`;
    A and B stand for the texts.
    """
    tokens = [*specials, *WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}

    def piece(name: str, type_id: int) -> dict[str, Any]:
        kind = "Sequence" if name in ("A", "B") else "SpecialToken"
        return {kind: {"id": name, "type_id": type_id}}

    pair = [piece(*each) for each in template]
    single = pair[: template.index(next(each for each in template if each[0] == "A")) + 2]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": number, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True}
            for number, token in enumerate(specials)
        ],
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                       "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": single,
            "pair": pair,
            "special_tokens": {
                token: {"id": token, "ids": [vocabulary[token]], "tokens": [token]} for token in specials
            },
        },
        "decoder": None,
        "model": {"type": "WordPiece", "unk_token": "[UNK]" if "[UNK]" in vocabulary else "<unk>",
                  "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": vocabulary},
    }  # fmt: skip


def _bert(folder: Path, seed: int, activation: dict[str, Any]) -> None:
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    template = [("[CLS]", 0), ("A", 0), ("[SEP]", 0), ("B", 1), ("[SEP]", 1)]
    tokenizer = word_tokenizer(specials, template)
    rows = len(tokenizer["model"]["vocab"])
    config = {
        "model_type": "bert", "architectures": ["BertForSequenceClassification"], "hidden_size": HIDDEN,
        "intermediate_size": INNER, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "vocab_size": rows, "max_position_embeddings": POSITIONS, "type_vocab_size": 2,
        "layer_norm_eps": 1e-12, "hidden_act": "gelu", "pad_token_id": 0, **LABEL, **activation,
    }  # fmt: skip
    weights = Weights(seed)
    _bert_encoder(weights, "bert", rows, types=2)
    weights.linear("bert.pooler.dense", HIDDEN, HIDDEN)
    weights.linear("classifier", 1, HIDDEN, 4.0)
    names = ["input_ids", "token_type_ids", "attention_mask"]
    more = {"pad_token": "[PAD]", "model_max_length": POSITIONS, "model_input_names": names}
    _write(folder, config, tokenizer, weights, more)


def _bert_encoder(weights: Weights, prefix: str, rows: int, types: int) -> None:
    weights.embedding(f"{prefix}.embeddings.word_embeddings", rows)
    weights.embedding(f"{prefix}.embeddings.position_embeddings", POSITIONS)
    weights.embedding(f"{prefix}.embeddings.token_type_embeddings", types)
    weights.norm(f"{prefix}.embeddings.LayerNorm")
    for layer in range(LAYERS):
        at = f"{prefix}.encoder.layer.{layer}"
        for name in ("query", "key", "value"):
            weights.linear(f"{at}.attention.self.{name}", HIDDEN, HIDDEN)
        weights.linear(f"{at}.attention.output.dense", HIDDEN, HIDDEN)
        weights.norm(f"{at}.attention.output.LayerNorm")
        weights.linear(f"{at}.intermediate.dense", INNER, HIDDEN)
        weights.linear(f"{at}.output.dense", HIDDEN, INNER)
        weights.norm(f"{at}.output.LayerNorm")


def _xlm_roberta(folder: Path, seed: int) -> None:
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    template = [("<s>", 0), ("A", 0), ("</s>", 0), ("</s>", 0), ("B", 0), ("</s>", 0)]
    tokenizer = word_tokenizer(specials, template)
    rows = len(tokenizer["model"]["vocab"])
    config = {
        "model_type": "xlm-roberta", "architectures": ["XLMRobertaForSequenceClassification"],
        "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "vocab_size": rows, "max_position_embeddings": POSITIONS,
        "type_vocab_size": 1, "layer_norm_eps": 1e-5, "hidden_act": "gelu", "pad_token_id": 1,
        "bos_token_id": 0, "eos_token_id": 2, **LABEL,
    }  # fmt: skip
    weights = Weights(seed)
    _bert_encoder(weights, "roberta", rows, types=1)
    weights.linear("classifier.dense", HIDDEN, HIDDEN)
    weights.linear("classifier.out_proj", 1, HIDDEN, 4.0)
    names = ["input_ids", "attention_mask"]
    length = POSITIONS - 2
    more = {"pad_token": "<pad>", "model_max_length": length, "model_input_names": names}
    _write(folder, config, tokenizer, weights, more)


def _modern_bert(folder: Path, seed: int, pooling: str) -> None:
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    template = [("[CLS]", 0), ("A", 0), ("[SEP]", 0), ("B", 0), ("[SEP]", 0)]
    tokenizer = word_tokenizer(specials, template)
    rows = len(tokenizer["model"]["vocab"])
    layers = 3
    config = {
        "model_type": "modernbert", "architectures": ["ModernBertForSequenceClassification"],
        "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": layers,
        "num_attention_heads": HEADS, "vocab_size": rows, "max_position_embeddings": POSITIONS,
        "global_attn_every_n_layers": 2, "local_attention": 16, "global_rope_theta": 160000.0,
        "local_rope_theta": 10000.0, "norm_eps": 1e-5, "norm_bias": False, "attention_bias": False,
        "mlp_bias": False, "classifier_bias": False, "classifier_pooling": pooling,
        "classifier_activation": "gelu", "hidden_activation": "gelu", "pad_token_id": 0, "cls_token_id": 2,
        "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3, **LABEL,
        "sentence_transformers": IDENTITY,
    }  # fmt: skip
    weights = Weights(seed)
    weights.embedding("model.embeddings.tok_embeddings", rows)
    weights.norm("model.embeddings.norm", bias=False)
    for layer in range(layers):
        at = f"model.layers.{layer}"
        if layer:
            weights.norm(f"{at}.attn_norm", bias=False)
        weights.linear(f"{at}.attn.Wqkv", 3 * HIDDEN, HIDDEN, bias=False)
        weights.linear(f"{at}.attn.Wo", HIDDEN, HIDDEN, bias=False)
        weights.norm(f"{at}.mlp_norm", bias=False)
        weights.linear(f"{at}.mlp.Wi", 2 * INNER, HIDDEN, bias=False)
        weights.linear(f"{at}.mlp.Wo", HIDDEN, INNER, bias=False)
    weights.norm("model.final_norm", bias=False)
    weights.linear("head.dense", HIDDEN, HIDDEN, bias=False)
    weights.norm("head.norm", bias=False)
    weights.linear("classifier", 1, HIDDEN, 4.0)
    names = ["input_ids", "attention_mask"]
    more = {"pad_token": "[PAD]", "model_max_length": POSITIONS, "model_input_names": names}
    _write(folder, config, tokenizer, weights, more)


JUDGE_TEMPLATE = """\
{%- set instruct = messages | selectattr("role", "eq", "system") | map(attribute="content") | first | \
default("Given a web search query, retrieve relevant passages that answer the query", true) -%}
{%- set asked = messages | selectattr("role", "eq", "query") | map(attribute="content") | first -%}
{%- set text = messages | selectattr("role", "eq", "document") | map(attribute="content") | first -%}
{{- '<|im_start|>system\\nJudge whether the Document meets the requirements based on the Query and the \
Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\\n' \
+ '<|im_start|>user\\n<Instruct>: ' + instruct + '\\n<Query>: ' + asked + '\\n<Document>: ' + text \
+ '<|im_end|>\\n<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n' -}}
"""
JUDGE_SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")


def byte_tokenizer() -> dict[str, Any]:
    """Return the tokenizer.json of a byte-level BPE tokenizer with few merges and the tokens of chats."""
    alphabet = [character for _, character in sorted(_byte_characters())]
    merges = [("y", "e"), ("ye", "s"), ("n", "o"), ("t", "h"), ("th", "e"), ("Ġ", "the"), ("Ġ", "no")]
    tokens = [*alphabet, *("".join(pair) for pair in merges)]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    pattern = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": len(vocabulary) + number, "content": token, "single_word": False, "lstrip": False,
             "rstrip": False, "normalized": False, "special": True}
            for number, token in enumerate(JUDGE_SPECIALS)
        ],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
            ],
        },
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False,
                    "use_regex": False},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
                  "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False,
                  "vocab": vocabulary, "merges": [list(pair) for pair in merges]},
    }  # fmt: skip


def _byte_characters() -> Iterator[tuple[int, str]]:
    """Yield each byte with the character that stands for it in a byte-level vocabulary."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in shown]
    yield from ((byte, chr(byte)) for byte in shown)
    yield from ((byte, chr(256 + number)) for number, byte in enumerate(hidden))


def _qwen3(folder: Path, seed: int, *, classifier: bool) -> None:
    tokenizer = byte_tokenizer()
    rows = len(tokenizer["model"]["vocab"]) + len(JUDGE_SPECIALS)
    head_width, kv_heads = 16, 2
    architecture = "Qwen3ForSequenceClassification" if classifier else "Qwen3ForCausalLM"
    config = {
        "model_type": "qwen3", "architectures": [architecture], "hidden_size": HIDDEN,
        "intermediate_size": INNER, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": kv_heads, "head_dim": head_width, "vocab_size": rows,
        "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
        "tie_word_embeddings": not classifier, "hidden_act": "silu", "pad_token_id": rows - 5,
        "eos_token_id": rows - 3, "bos_token_id": None, **(LABEL if classifier else {}),
    }  # fmt: skip
    weights = Weights(seed)
    weights.embedding("model.embed_tokens", rows)
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        weights.norm(f"{at}.input_layernorm", bias=False)
        weights.linear(f"{at}.self_attn.q_proj", HEADS * head_width, HIDDEN, bias=False)
        weights.linear(f"{at}.self_attn.k_proj", kv_heads * head_width, HIDDEN, bias=False)
        weights.linear(f"{at}.self_attn.v_proj", kv_heads * head_width, HIDDEN, bias=False)
        weights.norm(f"{at}.self_attn.q_norm", head_width, bias=False)
        weights.norm(f"{at}.self_attn.k_norm", head_width, bias=False)
        weights.linear(f"{at}.self_attn.o_proj", HIDDEN, HEADS * head_width, bias=False)
        weights.norm(f"{at}.post_attention_layernorm", bias=False)
        weights.linear(f"{at}.mlp.gate_proj", INNER, HIDDEN, bias=False)
        weights.linear(f"{at}.mlp.up_proj", INNER, HIDDEN, bias=False)
        weights.linear(f"{at}.mlp.down_proj", HIDDEN, INNER, bias=False)
    weights.norm("model.norm", bias=False)
    if classifier:
        weights.linear("score", 1, HIDDEN, 4.0, bias=False)
    more = {"pad_token": "<|endoftext|>", "eos_token": "<|im_end|>", "model_max_length": 4096}
    _write(folder, config, tokenizer, weights, more)
    (folder / "chat_template.jinja").write_text(JUDGE_TEMPLATE)
    (folder / "README.md").write_text("---\npipeline_tag: text-ranking\n---\n")
    if not classifier:
        vocabulary = tokenizer["model"]["vocab"]
        _json(folder / "1_LogitScore" / "config.json", {
            "true_token_id": vocabulary["yes"], "false_token_id": vocabulary["no"],
        })  # fmt: skip
        package = "sentence_transformers"
        modules = [("", f"{package}.base.modules.transformer.Transformer"),
                   ("1_LogitScore", f"{package}.cross_encoder.modules.logit_score.LogitScore")]  # fmt: skip
        _json(
            folder / "modules.json",
            [
                {"idx": n, "name": str(n), "path": path, "type": name}
                for n, (path, name) in enumerate(modules)
            ],
        )


def _write(
    folder: Path, config: dict[str, Any], tokenizer: dict[str, Any], weights: Weights, more: dict[str, Any]
) -> None:
    _json(folder / "config.json", config | {"torch_dtype": "float32"})
    _json(folder / "tokenizer.json", tokenizer)
    _json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"} | more)
    save_file(weights.drawn, folder / "model.safetensors", {"format": "pt"})


def _json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


FAMILIES: dict[str, Callable[[Path], None]] = {
    "bert": lambda folder: _bert(folder, 1, {}),
    "bert-logits": lambda folder: _bert(folder, 2, {"sentence_transformers": IDENTITY}),
    "xlm-roberta": lambda folder: _xlm_roberta(folder, 3),
    "modernbert-cls": lambda folder: _modern_bert(folder, 4, "cls"),
    "modernbert-mean": lambda folder: _modern_bert(folder, 5, "mean"),
    "qwen3": lambda folder: _qwen3(folder, 46, classifier=False),
    "qwen3-classifier": lambda folder: _qwen3(folder, 14, classifier=True),
}
"""Writes a reranker of this family into a folder."""
