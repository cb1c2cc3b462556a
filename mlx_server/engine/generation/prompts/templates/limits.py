"""The limits on rendering a chat template, and the errors that say why a template could not be rendered.
Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True)
class TemplateLimits:
    """The limits on rendering one template.

    `seconds` limits the time, `memory_bytes` the memory that the process takes in addition to its memory when
    idle, and `chars` the length of the rendered text. With `kernel_enforces_memory`, Linux refuses
    allocations beyond the limit. In any case, the engine ends a process whose resident memory has grown
    beyond it.
    """

    seconds: float = 5.0
    memory_bytes: int = 256 * MIB
    chars: int = 16 * MIB
    kernel_enforces_memory: bool = True


class TemplateError(Exception):
    """The base of the errors that say why a template could not be rendered."""


class TemplateRefusal(TemplateError):
    """The template raised an exception, whose text is the text of this error."""


class TemplateLimitExceeded(TemplateError):
    """The template exceeded a limit and was stopped. The text of this error begins with a verb, for example
    "took longer than 5 s".
    """


class TemplateProcessDied(TemplateError):
    """The template process could not be started, or ended for an unknown reason."""


def too_slow(limits: TemplateLimits) -> TemplateLimitExceeded:
    """Return the error for a template that takes too long."""
    return TemplateLimitExceeded(f"took longer than {limits.seconds:g} s")


def out_of_memory(limits: TemplateLimits) -> TemplateLimitExceeded:
    """Return the error for a template that needs too much memory."""
    return TemplateLimitExceeded(f"needed more than {limits.memory_bytes // MIB} MiB of memory")


def too_long(limits: TemplateLimits) -> TemplateLimitExceeded:
    """Return the error for a template whose rendered text is too long."""
    return TemplateLimitExceeded(f"made a text of more than {limits.chars} characters")
