"""Recognize errors that come from a lack of file descriptors or memory. A file that could not be opened or
read because of such an error need not be missing or broken.
"""

from __future__ import annotations

from vestal.best_effort.files import EXHAUSTED


def is_exhausted(error: BaseException) -> bool:
    """Return whether an error comes from a lack of descriptors or memory, so that it may be over soon."""
    return isinstance(error, OSError) and error.errno in EXHAUSTED


def raise_if_exhausted(error: BaseException) -> None:
    """Raise the error again if it comes from a lack of descriptors or memory.

    Code that takes an OSError to mean "there is no such file" calls this first, because a model is not gone
    when merely no descriptor was left to open its files.
    """
    if is_exhausted(error):
        raise error
