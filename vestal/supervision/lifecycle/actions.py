"""The actions that a child's lifecycle returns, for `vestal.supervision.child` to carry out. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vestal.supervision.lifecycle.child_state import ChildState


@dataclass(frozen=True)
class Launch:
    """Launch a process for the child (a supervised service, which has one process after another). Then send
    Launched or LaunchFailed, with the same `run`, to the lifecycle.

    `run` counts the child's processes under this supervisor, from 1.
    """

    run: int


@dataclass(frozen=True)
class Terminate:
    """Send SIGTERM to the process group of the child's process.

    `run` is the number of the process among those that the child has had under this supervisor, from 1.
    """

    run: int


@dataclass(frozen=True)
class Kill:
    """Send SIGKILL to the process group of the child's process.

    `run` is the number of the process among those that the child has had under this supervisor, from 1.
    """

    run: int


@dataclass(frozen=True)
class Emit:
    """Publish the event `event`, such as `child_ready`, about the child. `cause` says why it happened, in
    words for people; `fields` hold details for programs.
    """

    event: str
    cause: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SaveState:
    """Write the part of the state that must outlive the supervisor (`saved_state.to_record`) to the state
    store.
    """


@dataclass(frozen=True)
class RestartSiblings:
    """Report the child's death to the supervisor. Its strategy decides which siblings are stopped, and when
    they and this child are started again.
    """


Action = Launch | Terminate | Kill | Emit | SaveState | RestartSiblings

Transition = tuple[ChildState, tuple[Action, ...]]
"""The next state of a child, and the actions to carry out, in order."""


def prepend(actions: tuple[Action, ...], transition: Transition) -> Transition:
    """Return the transition with `actions` before its own."""
    child, following = transition
    return child, (*actions, *following)
