"""Turn texts into token ids with a model's tokenizer: plain prompts, and the two texts around a gap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mlx_server.engine.errors import RequestError
from mlx_server.engine.generation.prompts.infilling import infill_tokens
from mlx_server.engine.generation.prompts.length_check import tokenization_error
from mlx_server.engine.generation.prompts.token_ids import check_client_ids
from mlx_server.protocol import Generate


@dataclass(frozen=True)
class TextTokens:
    """Turns texts into token ids. `token_rows` is how many tokens the model has weights for; None
    if unknown.
    """

    tokenizer: Any
    token_rows: int | None = None

    @property
    def limit(self) -> int:
        """Return the limit of token ids that a client chooses: each of them must be less."""
        known = len(self.tokenizer)
        return known if self.token_rows is None else min(known, self.token_rows)

    @property
    def answer_limit(self) -> int:
        """Return the limit of token ids in an earlier answer: each of them must be less. This limit may
        exceed `limit`, because some models have weights for more tokens than their tokenizer knows (Qwen 2.5
        for 271 more), and may draw such a token.
        """
        return len(self.tokenizer) if self.token_rows is None else self.token_rows

    def of_prompt(self, op: Generate) -> list[int]:
        """Return the tokens of a prompt that is not a chat. If `op.suffix` is given, the answer is to fill
        the gap between the prompt's text and the suffix.

        Raises RequestError if token ids from the client are unknown, the tokenizer fails to tokenize the
        text, or there is a suffix and the tokenizer has no tokens that mark a gap.
        """
        if op.prompt_ids is not None:
            check_client_ids(op.prompt_ids, self.limit)
            return list(op.prompt_ids)
        prompt = op.prompt or ""
        if op.suffix is not None:
            return self._infill(op.model, prompt, op.suffix)
        bos = self.tokenizer.bos_token
        adds_special_tokens = op.adds_special_tokens and (bos is None or not prompt.startswith(bos))
        return self.encode(prompt, adds_special_tokens) if prompt else []

    @property
    def infill_ends(self) -> frozenset[int]:
        """Return the tokens that end the answer to a request with a suffix (infilling); empty if the model
        cannot infill.
        """
        markers = infill_tokens(self.tokenizer)
        return markers.ends if markers else frozenset()

    def _infill(self, model: str, before: str, after: str) -> list[int]:
        markers = infill_tokens(self.tokenizer)
        if markers is None:
            raise RequestError(
                "invalid_request",
                f"Model {model} does not support insert: its tokenizer has no tokens for the text before and "
                "after a gap. Leave out the suffix.",
            )
        texts = (self.encode(text, add_special_tokens=False) for text in (before, after))
        return markers.prompt(self.start(), *texts)

    def start(self) -> list[int]:
        """Return a list with the token that the tokenizer puts before every text; [] if there is none.

        The `bos_token` is not always put there: SmolLM2's `bos_token` begins each message instead.
        """
        start = self.encode("", add_special_tokens=True)[:1]
        return start if start == [self.tokenizer.bos_token_id] else []

    def with_start(self, rendered: str) -> str:
        """Return a rendered chat, preceded by the text of the token that the tokenizer puts before every
        text, unless the chat already begins with it.

        A model's own chat template writes that token. Templates from Ollama do not, because Ollama itself
        puts the token before the rendered text. Models such as Gemma answer nonsense without it.
        """
        bos = self.tokenizer.bos_token
        return f"{bos}{rendered}" if bos and not rendered.startswith(bos) and self.start() else rendered

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        """Return the tokens of `text`. Raises RequestError if the tokenizer fails to tokenize it."""
        try:
            return list(self.tokenizer.encode(text, add_special_tokens=add_special_tokens))
        except Exception as error:  # for example at a lone surrogate, which JSON can carry and UTF-8 cannot
            raise tokenization_error(error) from error
