"""Decide from a model's files what clients may ask of it, in the words of Ollama's API."""

from __future__ import annotations

WITHOUT_CHAT: dict[str, tuple[str, ...]] = {"embed": ("embedding",), "rerank": ("rerank",)}
"""The capabilities of models that do not generate text, by their kind."""


def capabilities_of(template: str, *, fills_gaps: bool, reads_images: bool = False) -> tuple[str, ...]:
    """Return the capabilities of a model with this chat template, in Ollama's words. Clients decide by them
    whether to offer tools.

    `fills_gaps` says whether the model can continue a text that is followed by a suffix. Every model with a
    chat template has tools: if the template has no place for them, the system message describes them.
    """
    thinks = ("<think>" in template and "</think>" in template) or "<|channel|>analysis" in template
    return (
        "completion",
        *(["tools"] if template else []),
        *(["insert"] if fills_gaps else []),
        *(["thinking"] if thinks else []),
        *(["vision"] if reads_images else []),
    )


INFILL_MARKERS = (
    ("<|fim_prefix|>", "<|fim_suffix|>"),
    ("<fim_prefix>", "<fim_suffix>"),
    ("<fim-prefix>", "<fim-suffix>"),
    ("▁<PRE>", "▁<SUF>"),
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>"),
    ("<[fim-prefix]>", "<[fim-suffix]>"),
    ("[PREFIX]", "[SUFFIX]"),
)
"""Pairs of tokens that stand before and after a gap in a text. A model whose tokenizer has such a pair can
fill gaps.
"""


def has_infill_markers(tokenizer: bytes) -> bool:
    """Return True if the model can fill a gap in a text: its tokenizer.json, with the content `tokenizer`,
    has both tokens of a pair of INFILL_MARKERS.
    """
    return any(all(f'"{marker}"'.encode() in tokenizer for marker in pair) for pair in INFILL_MARKERS)
