"""Choose an installed model that meets the needs of a program. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

EXAMPLE = "qwen3.5:9b"
"""A model that suits agents, under a name that `vestal models pull` knows."""


@dataclass(frozen=True)
class InstalledModel:
    """A language model of the MLX server. `is_loaded` says that it is in memory, `tools` that it can call
    tools.

    `context_tokens` is the longest context that it accepts, or 0 if unknown.
    """

    name: str
    context_tokens: int
    tools: bool
    size_bytes: int
    is_loaded: bool = False


@dataclass(frozen=True)
class Needs:
    """What a program requires of its model: a context of at least `context_tokens`, and tool calls if
    `tools`.
    """

    context_tokens: int
    tools: bool

    def lacking(self, model: InstalledModel) -> str:
        """Return which of these needs the model does not meet, in words; empty if it meets all."""
        few = model.context_tokens < self.context_tokens
        missing = [f"has a context of {model.context_tokens:,} tokens"] if few else []
        if self.tools and not model.tools:
            missing.append("cannot call tools")
        return " and ".join(missing)

    def __str__(self) -> str:
        context = f"a context of {self.context_tokens:,} tokens or more" if self.context_tokens else ""
        return " and ".join(filter(None, (context, "tools" if self.tools else ""))) or "any model"


def language_models(tags: dict[str, Any], loaded: dict[str, Any]) -> list[InstalledModel]:
    """Return the installed models that generate text, from `tags`, the response of /api/tags. `loaded`, the
    response of /api/ps, says which of them are in memory.
    """
    in_memory = {model["name"] for model in loaded.get("models", ())}
    return [
        InstalledModel(
            name=model["name"],
            context_tokens=int(model["details"].get("context_length") or 0),
            tools="tools" in model["capabilities"],
            size_bytes=int(model["size"]),
            is_loaded=model["name"] in in_memory,
        )
        for model in tags.get("models", ())
        if "completion" in model["capabilities"]
    ]


def best(models: Sequence[InstalledModel], needs: Needs) -> InstalledModel | None:
    """Return, of the models that meet `needs`, the loaded one with the most bytes or, if none of them is
    loaded, the one with the most bytes. Return None if no model meets `needs`.
    """
    fitting = [model for model in models if not needs.lacking(model)]
    return max(fitting, key=lambda model: (model.is_loaded, model.size_bytes, model.name), default=None)


def why_none_fits(title: str, models: Sequence[InstalledModel], needs: Needs) -> str:
    """Return sentences that say what the program `title` needs, what each model lacks, and the remedy."""
    lacks = "; ".join(f"{model.name} {needs.lacking(model)}" for model in models) or "none is installed"
    return (
        f"{title} needs {needs}, and no installed model has that: {lacks}. Fetch one that has, such as by "
        f"`vestal models pull {EXAMPLE}`, or name one with --model to try it all the same."
    )
