"""Decide from a model's files whether it is to generate text, to embed or to rerank. Pure.

A model is first checked for being a reranker, then an embedder; all others generate text. An embedder or
reranker whose files name something that is not supported gets a `reason`, and is listed as broken.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mlx_server.model_store.files.sentence_modules import (
    Module,
    SentenceSteps,
    UnsupportedModules,
    check_sizes,
    sentence_steps,
)

Kind = Literal["generate", "embed", "rerank"]


@dataclass(frozen=True)
class ModelKind:
    """Whether a model is to generate text, to embed or to rerank (`kind`), and whether it can be served.

    `encoder` names the module in `mlx_server/engine/embeddings/architectures` that computes an embedder or
    reranker, None for a language model. `reason` says, as part of a sentence, why the model cannot be served;
    None if it can.
    """

    kind: Kind
    encoder: str | None = None
    reason: str | None = None


ENCODERS = {
    "bert": "bert",
    "camembert": "roberta",
    "gemma3_text": "gemma3",
    "llama": "decoder",
    "mistral": "decoder",
    "modernbert": "modernbert",
    "nomic_bert": "nomic_bert",
    "qwen2": "decoder",
    "qwen3": "decoder",
    "roberta": "roberta",
    "xlm-roberta": "roberta",
}
"""Maps a `model_type` of config.json to the encoder that computes it."""

_DECODERS = frozenset({"gemma3_text", "llama", "mistral", "qwen2", "qwen3"})
"""Model types that may generate text or embed: the model's other files decide."""

_ONLY_ENCODERS = (ENCODERS.keys() - _DECODERS) | {
    *("albert", "big_bird", "deberta", "deberta-v2", "distilbert", "electra", "esm", "eurobert", "gte"),
    *("jina_bert", "jina_embeddings_v3", "longformer", "mobilebert", "mpnet", "new"),
    *("roberta-prelayernorm", "xlm-roberta-xl"),
}
"""Model types that cannot generate text."""

RERANKING_ENCODERS = frozenset({"bert", "camembert", "modernbert", "roberta", "xlm-roberta"})
"""The model types of ENCODERS for which a scoring head is implemented."""

_RANKING_TASK = "text-ranking"
_EMBEDDING_TASKS = frozenset({"feature-extraction", "sentence-similarity"})

_BERT: dict[str, tuple[object, ...]] = {
    "hidden_act": ("gelu",),
    "position_embedding_type": ("absolute",),
    "is_decoder": (False,),
}
_FIXED: dict[str, dict[str, tuple[object, ...]]] = {
    "bert": _BERT,
    "roberta": _BERT,
    "modernbert": {"hidden_activation": ("gelu",), "rope_scaling": (None,)},
    "nomic_bert": {
        "activation_function": ("swiglu",),
        "hidden_act": ("silu",),
        "prenorm": (False,),
        "use_rms_norm": (False, None),
        "rotary_emb_fraction": (1.0,),
        "rotary_emb_interleaved": (False, None),
        "rotary_emb_scale_base": (None,),
        "rotary_scaling_factor": (None,),
        "moe_every_n_layers": (0, None),
        "num_experts": (0, 1, None),
    },
    "decoder": {"is_causal": (True,), "use_bidirectional_attention": (False, None), "auto_map": (None,)},
    "gemma3": {"hidden_activation": ("gelu_pytorch_tanh",), "use_bidirectional_attention": (True,)},
}
"""The fields of config.json that an encoder restricts, with the values that it supports. A missing field
counts as the first value.
"""


def classify(
    config: Mapping[str, Any],
    modules: Sequence[Module],
    tensor_names: Collection[str],
    front_matter: Mapping[str, Any],
) -> ModelKind:
    """Return the kind of a model.

    `config` is its config.json, `modules` are its sentence-transformers modules (empty without any), and
    `front_matter` is the YAML at the head of its README, which decides only if nothing else does.
    """
    if (reranker := _reranker(config, modules, front_matter)) is not None:
        return reranker
    if _embeds(config, modules, front_matter):
        return _embedder(config, modules, tensor_names)
    return ModelKind("generate")


def _reranker(
    config: Mapping[str, Any], modules: Sequence[Module], front_matter: Mapping[str, Any]
) -> ModelKind | None:
    """Return the kind of a model that scores pairs of texts; None if the model is not a reranker.

    A cross-encoder is a sequence classifier with one label. A language model that is asked for yes or no is
    recognized by sentence-transformers' module LogitScore, or else by the task in its README.
    """
    architecture, model_type = _architecture(config), str(config.get("model_type", "unknown"))
    is_for_ranking = front_matter.get("pipeline_tag") == _RANKING_TASK
    if architecture.endswith("ForSequenceClassification"):
        return ModelKind("rerank", ENCODERS.get(model_type), _not_a_cross_encoder(config, is_for_ranking))
    is_judge = any(module.name == "LogitScore" for module in modules)
    if not is_judge and (modules or not is_for_ranking or model_type in ENCODERS.keys() - _DECODERS):
        return None
    if model_type == "qwen3" and architecture.endswith("ForCausalLM"):
        return ModelKind("rerank")
    return ModelKind("rerank", None, f"its architecture {architecture or model_type} cannot rank documents")


def _not_a_cross_encoder(config: Mapping[str, Any], is_for_ranking: bool) -> str | None:
    """Return why a sequence classifier cannot be served as a reranker; None if it can. `is_for_ranking` says
    whether the model's README gives ranking as its task. Without that, a `qwen3` classifier cannot be served,
    because reward models have the same architecture.
    """
    model_type = str(config.get("model_type", "unknown"))
    names = config.get("id2label")
    labels = len(names) if isinstance(names, dict) else config.get("num_labels", 2)
    if labels != 1:
        return f"it is a classifier with {labels} labels; a reranker has one"
    if model_type == "qwen3":  # reward models have the same architecture
        return None if is_for_ranking else "it is a classifier, and its README does not say that it ranks"
    if model_type not in RERANKING_ENCODERS:
        return f"its architecture {model_type} is not supported for reranking"
    return _wrong_field(ENCODERS[model_type], config)


def _embeds(config: Mapping[str, Any], modules: Sequence[Module], front_matter: Mapping[str, Any]) -> bool:
    model_type = str(config.get("model_type", "unknown"))
    if modules or model_type in _ONLY_ENCODERS:
        return True
    if model_type not in _DECODERS:
        return False
    return (
        config.get("use_bidirectional_attention") is True
        or _architecture(config).endswith(("TextModel", "Model"))  # a language model without its output head
        or str(front_matter.get("pipeline_tag")) in _EMBEDDING_TASKS
    )


def _embedder(
    config: Mapping[str, Any], modules: Sequence[Module], tensor_names: Collection[str]
) -> ModelKind:
    model_type = str(config.get("model_type", "unknown"))
    encoder = ENCODERS.get(model_type)
    if encoder is None:
        return ModelKind("embed", None, f"its architecture {model_type} is not supported for embeddings")
    return ModelKind("embed", encoder, _unsupported(encoder, config, modules, tensor_names))


def _unsupported(
    encoder: str, config: Mapping[str, Any], modules: Sequence[Module], tensor_names: Collection[str]
) -> str | None:
    """Return, as part of a sentence, why an embedder cannot be served; None if it can.

    `encoder` is the encoder that computes the embedder (a value of ENCODERS), `config` is the embedder's
    config.json, and `modules` are its sentence-transformers modules. `tensor_names` are the names in the
    model's own weight files, which may contain the weights of a projection.
    """
    if (wrong := _wrong_field(encoder, config)) is not None:
        return wrong
    try:
        steps = sentence_steps(modules, default_pooling(config))
        if isinstance(size := config.get("hidden_size", config.get("n_embd")), int):
            check_sizes(size, steps)
    except UnsupportedModules as error:
        return str(error)
    return _projection_fault(steps, modules, tensor_names)


def _projection_fault(
    steps: SentenceSteps, modules: Sequence[Module], tensor_names: Collection[str]
) -> str | None:
    """Return what is wrong with an embedder's projections, as part of a sentence; None if nothing is. A
    projection in `steps` may lack weights, or the model's weights may contain a projection although `steps`
    has none.

    `steps` was made from `modules`. A projection's weights are in the folder of its module, or named
    `dense.0` and so on in the model's own weights, whose names are `tensor_names`.
    """
    own = {module.path: module.tensor_names for module in modules}
    for i, dense in enumerate(steps.projections):
        if "linear.weight" not in own[dense.path] and f"dense.{i}.weight" not in tensor_names:
            return f"its projection {dense.path} has no weights in model.safetensors"
    if not steps.projections and "dense.0.weight" in tensor_names:
        return "it has a projection (dense.0) that no module describes"
    return None


def _wrong_field(encoder: str, config: Mapping[str, Any]) -> str | None:
    """Return, as part of a sentence, the first field of `config` whose value the encoder does not support;
    None if it supports all values.
    """
    for key, values in _FIXED.get(encoder, {}).items():
        if (value := config.get(key, values[0])) not in values:
            return f"its {key} is {value!r}; only {values[0]!r} is supported"
    for name, rope in _ropes(config):
        if rope.get("rope_type", "default") != "default" and encoder != "decoder":
            return f"its {name} has the rope_type {rope['rope_type']!r}, which is not supported"
    return None


def _ropes(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the name and the content of each description of rotary positions in config.json."""
    whole = config.get("rope_parameters")
    for name, rope in whole.items() if isinstance(whole, Mapping) else ():
        if isinstance(rope, Mapping):
            yield f"rope_parameters.{name}", rope
    if isinstance(whole, Mapping) and isinstance(whole.get("rope_type"), str):
        yield "rope_parameters", whole


def default_pooling(config: Mapping[str, Any]) -> str:
    """Return the pooling mode that sentence-transformers chooses for a model whose files name none:
    `lasttoken` or `mean`.
    """
    causal = _architecture(config).endswith("ForCausalLM") and config.get("is_causal", True)
    return "lasttoken" if causal and not config.get("use_bidirectional_attention") else "mean"


def _architecture(config: Mapping[str, Any]) -> str:
    """Return the first name of `architectures`, such as `BertModel`; empty if there is none."""
    names = config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else ""
