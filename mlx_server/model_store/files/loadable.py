"""Decide from a language model's files whether the installed mlx-lm can load it, without importing mlx-lm."""

from __future__ import annotations

import ast
import functools
import importlib.util
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from mlx_server.model_store.errors import DAMAGE
from mlx_server.model_store.files import model_folder, weight_files
from mlx_server.model_store.files.weight_files import UnreadableModel
from vestal.platform.exhaustion import raise_if_exhausted

OWN_CLASSES = frozenset({"idefics3", "smolvlm"})
"""The values of `model_type` for which the engine has a class of its own (`engine/vision/text_models.py`)."""
OTHER_NAMES = {"lfm2_vl": "lfm2-vl"}
"""Maps a `model_type` to the name of the module in mlx-lm from which the engine takes its class."""
_BITSANDBYTES = (".absmax", ".SCB", ".quant_state.bitsandbytes__nf4", ".quant_state.bitsandbytes__fp4")
"""Ends of the names of tensors that only bitsandbytes writes, for each layer that it quantizes."""


def check_loadable(folder: Path) -> None:
    """Raise UnreadableModel, which says why, if the files of the model in `folder` are damaged or not
    supported, or it is a language model that mlx-lm cannot load.
    """
    facts = model_folder.read_facts(folder)
    if facts.kind == "generate" and (reason := fault(facts.config, weight_files.read_headers(folder))):
        raise UnreadableModel(f"{folder}: {reason}")


def fault(config: Mapping[str, Any], tensor_names: Collection[str]) -> str | None:
    """Return, as part of a sentence, why mlx-lm cannot load a language model; None if nothing is known
    against it.

    `config` is the model's config.json, and `tensor_names` are the names of its tensors.
    """
    if "model_type" not in config:
        return "its config.json names no model_type"
    if config.get("model_file") is not None:
        return "its config.json names a program to load it with (model_file), and programs are not run"
    if any(name.endswith(_BITSANDBYTES) for name in tensor_names):
        return "its weights are quantized with bitsandbytes, which MLX cannot read"
    name = str(config["model_type"])
    known, renamed = _module_names(), _renamed()
    if not known or renamed is None or name in OWN_CLASSES:
        return None
    if not {name, OTHER_NAMES.get(name), renamed.get(name)} & known:
        return f"its architecture {name[:40]} is not one that the installed mlx-lm can load"
    return None


@functools.cache
def _module_names() -> frozenset[str]:
    """Return the names of the modules in the folder of mlx-lm's models, which are values of `model_type`;
    empty if mlx-lm is not installed.
    """
    return frozenset(path.stem for path in _package_folder().glob("models/*.py"))


@functools.cache
def _renamed() -> Mapping[str, str] | None:
    """Return mlx-lm's table MODEL_REMAPPING, which maps values of `model_type` to names of modules. It is
    read from the text of mlx-lm's `utils.py`; None if that has no such table that can be read.
    """
    try:
        for statement in ast.parse((_package_folder() / "utils.py").read_text("utf-8")).body:
            if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "MODEL_REMAPPING":
                return dict(ast.literal_eval(statement.value))
    except (*DAMAGE, SyntaxError) as error:
        raise_if_exhausted(error)
    return None


def _package_folder() -> Path:
    """Return the folder of the package mlx-lm, found without importing it; a folder that does not exist if it
    is not installed.
    """
    found = importlib.util.find_spec("mlx_lm")
    return Path(next(iter((found and found.submodule_search_locations) or ()), "/nonexistent"))
