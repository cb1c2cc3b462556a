"""Store the progress of a chaos run in a file, so that the run can be resumed.

The file has the counts of the answers, kills and upgrades so far. It also has the texts that the same
requests were answered with before the first kill or upgrade, because later answers are compared with them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.chaos.tally import Tally


class StateError(Exception):
    """The state file cannot be used; the message says why, and what to do."""


@dataclass
class State:
    """The progress of a run. `texts` has, by the number of each request, the text of its answer without
    kills.
    """

    tally: Tally = field(default_factory=Tally)
    texts: list[str] = field(default_factory=list)


def load(path: Path, options: Mapping[str, Any]) -> State:
    """Return the state of the run with these options; a new one if there is no file. Raises StateError if the
    file cannot be read or belongs to a run with other options.
    """
    try:
        kept = json.loads(path.read_text())
    except FileNotFoundError:
        return State()
    except (OSError, ValueError) as error:
        raise StateError(f"{path} cannot be read ({error}); delete it, or name another file.") from error
    try:
        if kept["options"] != dict(options):
            before = " ".join(f"{name}={value}" for name, value in kept["options"].items())
            message = (
                f"{path} belongs to a run with other options ({before}); give them, or name another file."
            )
            raise StateError(message)
        return State(Tally.from_json(kept["tally"]), list(kept["texts"]))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        message = f"{path} is not the state of such a run ({error!r}); delete it, or name another file."
        raise StateError(message) from error


def save(path: Path, options: Mapping[str, Any], state: State) -> None:
    """Write `state`, and the `options` of its run, to the file `path`. `load` compares the options with those
    of the resumed run. The file is replaced in one step, so that an interruption leaves the previous one.
    Raises OSError if it cannot be written.
    """
    text = json.dumps({"options": dict(options), "tally": state.tally.to_json(), "texts": state.texts})
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_text(text)
    temporary.replace(path)
