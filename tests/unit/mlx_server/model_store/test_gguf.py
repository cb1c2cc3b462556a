"""Translation of a GGUF file's metadata, tensor names and weights."""

import json

import mlx.core as mx
import pytest
from tokenizers import Tokenizer

from mlx_server.model_store.gguf.config import UnsupportedGguf, end_tokens, model_config
from mlx_server.model_store.gguf.convert import _bits, _unpermute, target_name
from mlx_server.model_store.gguf.tokenizer import tokenizer_config, tokenizer_json

BYTES = [*(chr(i) for i in range(ord("!"), ord("~") + 1)), "Ġ", "Ċ"]
METADATA = {
    "general.architecture": "llama",
    "llama.embedding_length": 576,
    "llama.feed_forward_length": 1536,
    "llama.block_count": 30,
    "llama.attention.head_count": 9,
    "llama.attention.head_count_kv": 3,
    "llama.attention.layer_norm_rms_epsilon": 1e-05,
    "llama.rope.freq_base": 100000.0,
    "llama.context_length": 8192,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.tokens": ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *BYTES, "12", "ab", "Ġab"],
    "tokenizer.ggml.token_type": [3, 3, 3] + [1] * (len(BYTES) + 3),
    "tokenizer.ggml.merges": ["1 2", "a b", "Ġ ab"],
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.chat_template": "{{ messages }}",
}


def without(key):
    return {k: v for k, v in METADATA.items() if k != key}


def test_model_config_of_llama_metadata_is_mlx_lms_configuration():
    config = model_config(METADATA, tied=True)
    assert config["model_type"] == "llama"
    assert (config["hidden_size"], config["head_dim"], config["num_key_value_heads"]) == (576, 64, 3)
    assert config["tie_word_embeddings"] is True
    assert config["rope_theta"] == 100000.0


def test_end_tokens_are_the_files_own_first_and_then_the_known_ones():
    assert end_tokens(METADATA) == [2, 0]
    assert model_config(METADATA, tied=False)["eos_token_id"] == [2, 0]


@pytest.mark.parametrize(
    "metadata",
    [
        METADATA | {"general.architecture": "gemma"},
        METADATA | {"llama.rope.scaling.type": "yarn"},
        without("llama.block_count"),
    ],
    ids=["other architecture", "scaled positions", "missing key"],
)
def test_model_config_of_an_unconvertible_gguf_raises(metadata):
    with pytest.raises(UnsupportedGguf):
        model_config(metadata, tied=True)


def test_tokenizer_json_splits_digits_and_keeps_special_tokens():
    tokenizer = Tokenizer.from_str(json.dumps(tokenizer_json(METADATA)))
    assert tokenizer.encode("ab 12<|im_end|>").tokens == ["ab", "Ġ", "1", "2", "<|im_end|>"]
    assert tokenizer.encode(" ab").tokens == ["Ġab"]
    assert tokenizer.decode(tokenizer.encode("ab 12\n").ids) == "ab 12\n"


def test_tokenizer_json_of_unknown_splitting_or_model_raises():
    with pytest.raises(UnsupportedGguf, match="llama-bpe"):
        tokenizer_json(METADATA | {"tokenizer.ggml.pre": "llama-bpe"})
    with pytest.raises(UnsupportedGguf, match="llama"):
        tokenizer_json(METADATA | {"tokenizer.ggml.model": "llama"})


def test_tokenizer_config_names_special_tokens_and_chat_template():
    config = tokenizer_config(METADATA)
    assert (config["bos_token"], config["eos_token"]) == ("<|im_start|>", "<|im_end|>")
    assert config["chat_template"] == "{{ messages }}"


def test_target_name_is_mlx_lms_name_or_raises_for_an_unknown_tensor():
    assert target_name("blk.11.attn_q.scales") == "model.layers.11.self_attn.q_proj.scales"
    assert target_name("token_embd.weight") == "model.embed_tokens.weight"
    with pytest.raises(UnsupportedGguf, match=r"blk\.0\.ffn_gate_inp"):
        target_name("blk.0.ffn_gate_inp.weight")


def test_unpermute_reverses_the_permutation_of_llama_cpp():
    weight = mx.arange(24 * 5).reshape(24, 5)
    permuted = weight.reshape(3, 2, 4, 5).swapaxes(1, 2).reshape(24, 5)
    assert mx.array_equal(_unpermute(permuted, heads=3), weight)


@pytest.mark.parametrize("bits", [4, 8])
def test_bits_are_derived_from_shapes_of_weights_and_scales(bits):
    packed, scales, biases = mx.quantize(mx.random.normal((8, 64)), group_size=32, bits=bits)
    weights = {"w.weight": packed, "w.scales": scales, "w.biases": biases, "norm.weight": mx.ones(8)}
    assert _bits(weights) == bits
    assert _bits({"norm.weight": mx.ones(8)}) is None
