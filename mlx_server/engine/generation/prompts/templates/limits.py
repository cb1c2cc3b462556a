"""The limits of a chat template, and the errors that say why it gave no text. Pure."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True)
class TemplateLimits:
    """The limits on rendering one template.

    `memory_bytes` is what the process may take beyond its memory when idle, `chars` the length of the text.

    With `kernel_enforces_memory`, Linux lets larger allocations fail. In any case the engine ends a process
    whose resident memory has grown beyond the limit.
    """

    seconds: float = 5.0
    memory_bytes: int = 256 * MIB
    chars: int = 16 * MIB
    kernel_enforces_memory: bool = True


class TemplateError(Exception):
    """The base of the errors that say why a template could not be rendered."""


class TemplateRefusal(TemplateError):
    """The template raised an exception, which is the text of this error."""


class TemplateLimitExceeded(TemplateError):
    """The template was stopped. The text of this error begins with a verb: "took longer than 5 s"."""


class TemplateProcessDied(TemplateError):
    """The template process could not be started, or ended for an unknown cause."""


def too_slow(limits: TemplateLimits) -> TemplateLimitExceeded:
    """Return the error for a template that takes too long."""
    return TemplateLimitExceeded(f"took longer than {limits.seconds:g} s")


def out_of_memory(limits: TemplateLimits) -> TemplateLimitExceeded:
    """Return the error for a template that takes too much memory."""
    return TemplateLimitExceeded(f"needed more than {limits.memory_bytes // MIB} MiB of memory")


def too_long(limits: TemplateLimits) -> TemplateLimitExceeded:
    """Return the error for a template that makes too long a text."""
    return TemplateLimitExceeded(f"made a text of more than {limits.chars} characters")
