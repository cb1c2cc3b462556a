"""Split Go's templates into texts and actions, which stand in double braces. Pure."""

from __future__ import annotations

from collections.abc import Iterator

MAX_DEPTH = 32
"""How deeply blocks and parentheses may be nested."""
MAX_CHARS = 64 * 1024
"""How many characters a template may have. Ollama's own have up to 10,000."""


class UntranslatableTemplate(ValueError):
    """A template cannot be read or translated; the text is a clause that says why."""


def split_actions(template: str) -> Iterator[tuple[bool, str]]:
    """Yield the texts and actions of a template in order, as pairs: whether it is an action, and its content.

    White space next to an action that trims it (`{{-`, `-}}`) is left out. Raises UntranslatableTemplate if
    an action is not closed.
    """
    at, trims = 0, False
    while (start := template.find("{{", at)) >= 0:
        end = template.find("}}", start)
        if end < 0:
            raise UntranslatableTemplate("an action is not closed")
        text, action = template[at:start], template[start + 2 : end]
        text = text.lstrip() if trims else text
        yield False, text.rstrip() if action[:1] == "-" and action[1:2].isspace() else text
        trims = action[-1:] == "-" and action[-2:-1].isspace()
        yield True, action.removeprefix("-").removesuffix("-" if trims else "").strip()
        at = end + 2
    yield False, template[at:].lstrip() if trims else template[at:]
