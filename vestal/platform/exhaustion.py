"""Errors that say that the process or the machine has run out of something, and nothing about a file."""

from __future__ import annotations

import errno

EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""No descriptor is left to the process, none to the machine, no memory."""


def is_exhausted(error: BaseException) -> bool:
    """Return whether an error comes from a lack of descriptors or memory, so that it may be over soon."""
    return isinstance(error, OSError) and error.errno in EXHAUSTED


def raise_if_exhausted(error: BaseException) -> None:
    """Raise the error again if it comes from a lack of descriptors or memory.

    Whoever takes an OSError as "there is no such file" calls this first: a model is not gone because no
    descriptor was left to look at it.
    """
    if is_exhausted(error):
        raise error
