"""A language model in memory: its weights, its tokenizer, and what is derived from both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mlx.core as mx
from mlx.utils import tree_flatten

from mlx_server.engine.generation.detokenizer import Decode
from mlx_server.engine.generation.output_parser import OutputMarkers
from mlx_server.engine.generation.prompts.prompt_maker import PromptMaker
from mlx_server.engine.grammar.grammars import Grammars
from mlx_server.engine.vision.loading import TEXT_ONLY, ImageSupport

if TYPE_CHECKING:  # imported only for a model with a vision part
    from mlx_server.engine.vision.vision import Vision


@dataclass(frozen=True, eq=False)
class SharedWeights:
    """The weights of a model, and what is derived from its files.

    The model itself and all models that add an adapter to it refer to the same SharedWeights, which are freed
    with the last of these models. `model` has no adapter. `grammars` compiles JSON schemas to grammars
    that restrict the tokens of an answer. `images` reads the images of requests, or is a text that says why
    images cannot be read. `vision` computes with images; None if the model reads text only.
    """

    model: Any
    config: dict[str, Any]
    tokenizer: Any
    end_tokens: frozenset[int]
    grammars: Grammars
    images: ImageSupport | str = TEXT_ONLY
    vision: Vision | None = None


@dataclass(frozen=True)
class LanguageModel:
    """A model that generates text, its tokenizer (mlx-lm's wrapper), and what is derived from both.

    `prompts` renders and tokenizes chats, `decode` returns the text of token ids, and `markers` are the texts
    around the model's thinking and tool calls. `grammars` compiles JSON schemas to grammars that restrict the
    tokens of an answer. `identity` identifies everything that determines the model's keys and values: its
    files, and the types of its weights. Cached prompts are only used under the same identity. `shared` has
    the weights that this model may share with other models, and `adapter_bytes` is the size of its adapter,
    which it does not share. `vision` computes with images; None if the model cannot. `draft` is the smaller
    model that drafts tokens for this one; None if there is none.
    """

    model: Any
    tokenizer: Any
    context_tokens: int
    end_tokens: frozenset[int]
    grammars: Grammars
    markers: OutputMarkers
    identity: str
    prompts: PromptMaker
    decode: Decode
    shared: SharedWeights | None = None
    adapter_bytes: int = 0
    vision: Vision | None = None
    draft: Any = None

    def close(self) -> None:
        """End the process that renders the model's chat templates, if there is one."""
        if self.prompts.templates is not None:
            self.prompts.templates.close()


def arrays_of(model: Any) -> list[mx.array]:
    """Return the arrays of an mlx.nn module's weights."""
    return [array for _, array in tree_flatten(model.parameters())]
