"""Make transformers render every chat template in a template process.

transformers still prepares messages and variables, chooses among a model's templates, and removes what the
template writes after an answer that is to be continued. Only the function with which it compiles a template
is replaced, in all of this Python process. A template can only be rendered within `rendered_by`, so no
template ever runs in the engine itself.
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
    """Replaces the compiled Jinja template that transformers would make of the text `source`. Its `render`
    renders the template in a template process, outside the engine's process.
    """

    def __init__(self, source: str) -> None:
        self._source = source

    def render(self, **variables: Any) -> str:
        """Render the template with `variables` in a template process, and return the text. The process and
        the time are the arguments of the innermost `with rendered_by(…)` block of this thread.

        Raises TemplateError if the template cannot be rendered, and RuntimeError outside such a block.
        """
        process: TemplateProcess | None
        process, time_s = getattr(_here, "process_and_time", (None, None))
        if process is None:
            raise RuntimeError("A chat template can be rendered in a template process only.")
        return process.render(self._source, variables, time_s)


@contextmanager
def rendered_by(process: TemplateProcess, time_s: float | None = None) -> Iterator[None]:
    """During the `with` block, let `process` render the templates for this thread's calls of transformers.
    Templates that write the date get that of `time_s` (seconds since 1970; None for the present).
    """
    before = getattr(_here, "process_and_time", (None, None))
    _here.process_and_time = process, time_s
    try:
        yield
    finally:
        _here.process_and_time = before


_compile = "_compile_jinja_template"
if not hasattr(chat_template_utils, _compile):
    raise ImportError(
        f"This release of transformers has no {_compile}, where chat templates are intercepted."
    )
setattr(chat_template_utils, _compile, RemoteTemplate)
