"""Interpret the steps after the encoder that a sentence-transformers model names: pooling, projections,
normalization. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

POOLING_MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
"""The ways to reduce a text's hidden states to one vector, in the order in which the vectors of several modes
are concatenated.
"""

_POOLING_FLAGS = {
    **{f"pooling_mode_{mode}_tokens": mode for mode in ("max", "mean", "weightedmean")},
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Maps each flag of older files to the pooling mode that it chooses."""

_ACTIVATIONS = {
    "torch.nn.modules.linear.Identity": "identity",
    "torch.nn.modules.activation.Tanh": "tanh",
    "torch.nn.modules.activation.ReLU": "relu",
    "torch.nn.modules.activation.GELU": "gelu",
    "torch.nn.modules.activation.SiLU": "silu",
    "torch.nn.modules.activation.Sigmoid": "sigmoid",
}
_SENTENCE = "sentence_embedding"
"""The name of a text's vector, which each step after the pooling takes and replaces."""


class UnsupportedModules(ValueError):
    """The sentence-transformers files of a model describe steps after the encoder that are not supported. The
    text says, as part of a sentence, what is not supported.
    """


@dataclass(frozen=True)
class Module:
    """One entry of `modules.json`: the full name of its class (`type`) and its folder (`path`).

    `config` is the content of the folder's config.json, `tensor_names` are those of its model.safetensors.
    """

    type: str
    path: str
    config: Mapping[str, Any]
    tensor_names: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """Return the name of the class without its package, such as `Pooling`."""
        return self.type.rpartition(".")[2]


@dataclass(frozen=True)
class Dense:
    """A linear projection of vectors, with its weights in the folder `path`.

    `activation` is identity, tanh, relu, gelu, silu or sigmoid.
    """

    path: str
    in_features: int
    out_features: int
    bias: bool
    activation: str


@dataclass(frozen=True)
class SentenceSteps:
    """The steps from a text's hidden states to its vector: the vectors of all `pooling` modes are
    concatenated and go through `projections`, and the result has unit norm if `normalizes`.

    With `pools_prompt`, the prompt's tokens take part in the pooling.
    """

    pooling: tuple[str, ...]
    pools_prompt: bool
    projections: tuple[Dense, ...]
    normalizes: bool


def sentence_steps(modules: Sequence[Module], default_pooling: str) -> SentenceSteps:
    """Return the steps that `modules` describe; without modules, the only step is pooling in the mode
    `default_pooling`.

    Raises UnsupportedModules, which names the first step that is not supported, if there is one.
    """
    if not modules:
        return SentenceSteps((default_pooling,), pools_prompt=True, projections=(), normalizes=False)
    pooling: tuple[str, ...] = ()
    pools_prompt, normalizes = True, False
    projections: list[Dense] = []
    for position, module in enumerate(modules):
        if not module.type.startswith("sentence_transformers."):
            raise UnsupportedModules(f"its module {module.type} is code of its own, which is not run")
        if module.name == "Transformer" and position == 0:
            continue
        if module.name == "Pooling" and not pooling and not projections:
            pooling, pools_prompt = (
                pooling_modes(module.config),
                bool(module.config.get("include_prompt", True)),
            )
        elif module.name == "Dense" and pooling and not normalizes:
            projections.append(_dense(module))
        elif module.name == "Normalize" and pooling:
            normalizes = True
        elif module.name != "Dropout":  # dropout has no effect after training
            raise UnsupportedModules(f"its module {module.name} at position {position} is not supported")
    if not pooling:
        raise UnsupportedModules("its modules have no Pooling: it does not make one vector of a text")
    return SentenceSteps(pooling, pools_prompt, tuple(projections), normalizes)


def check_sizes(hidden_size: int, steps: SentenceSteps) -> None:
    """Raise UnsupportedModules if a projection's input size is not the output size of the step before it.
    Pooling puts out `hidden_size` numbers for each of its modes.
    """
    size = hidden_size * len(steps.pooling)
    for dense in steps.projections:
        if dense.in_features != size:
            raise UnsupportedModules(
                f"its projection {dense.path} takes {dense.in_features} numbers, not {size}"
            )
        size = dense.out_features


def pooling_modes(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the pooling modes in the configuration of a Pooling module; `mean` if it names none. Raises
    UnsupportedModules if a mode is unknown.
    """
    named = config.get("pooling_mode")
    if named is None:
        unknown = [key for key in config if key.startswith("pooling_mode_") and key not in _POOLING_FLAGS]
        chosen = {_POOLING_FLAGS[key] for key in _POOLING_FLAGS if config.get(key)}
        for key in unknown:
            if config[key]:
                raise UnsupportedModules(f"its pooling mode {key} is unknown")
        return tuple(mode for mode in POOLING_MODES if mode in chosen) or ("mean",)
    modes = tuple(named) if isinstance(named, list) else (named,)
    for mode in modes:
        if mode not in POOLING_MODES:
            raise UnsupportedModules(f"its pooling mode {mode!r} is unknown")
    return modes


def _dense(module: Module) -> Dense:
    config, where = module.config, f"its projection {module.path}"
    activation = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    if activation not in _ACTIVATIONS:
        raise UnsupportedModules(f"{where} has the activation {activation!r}, which is not supported")
    of_sentence = config.get("module_input_name") in (None, _SENTENCE)
    if not of_sentence or config.get("module_output_name") not in (None, _SENTENCE):
        raise UnsupportedModules(f"{where} does not project the vector of a text")
    if config.get("use_residual"):
        raise UnsupportedModules(f"{where} has a residual connection, which is not supported")
    sizes = config.get("in_features"), config.get("out_features")
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        raise UnsupportedModules(f"{where} does not name its sizes")
    return Dense(
        module.path,
        int(config["in_features"]),
        int(config["out_features"]),
        bool(config.get("bias", True)),
        _ACTIVATIONS[activation],
    )
