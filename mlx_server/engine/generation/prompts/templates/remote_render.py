"""Make transformers render every chat template in a template process.

transformers prepares messages and variables, chooses among a model's templates, and cuts an answer that is to
be continued; all that goes on as before. Only what it calls to compile a template is replaced, for the whole
process: a template that no template process was named for is refused, so none can run on a thread of the
engine, whichever of transformers' functions asks for it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers.utils import chat_template_utils

from mlx_server.engine.generation.prompts.templates.process import TemplateProcess

_here = threading.local()


class RemoteTemplate:
    """A template as transformers uses it: `render` takes its variables."""

    def __init__(self, source: str) -> None:
        self._source = source

    def render(self, **variables: Any) -> str:
        """Return the text, from the process of the innermost `rendered_by`. Raises TemplateError."""
        process: TemplateProcess | None = getattr(_here, "process", None)
        if process is None:
            raise RuntimeError("A chat template can be rendered in a template process only.")
        return process.render(self._source, variables)


@contextmanager
def rendered_by(process: TemplateProcess) -> Iterator[None]:
    """Let `process` render the templates that this thread asks transformers for."""
    before = getattr(_here, "process", None)
    _here.process = process
    try:
        yield
    finally:
        _here.process = before


_compile = "_compile_jinja_template"
if not hasattr(chat_template_utils, _compile):
    raise ImportError(
        f"This release of transformers has no {_compile}, where chat templates are intercepted."
    )
setattr(chat_template_utils, _compile, RemoteTemplate)
