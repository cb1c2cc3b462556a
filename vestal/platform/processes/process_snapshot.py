"""The properties of a process at the moment at which they were read.

Pure: code that judges a process works on a snapshot, and does not touch the machine.
"""

from dataclasses import dataclass
from pathlib import PurePath

INTERPRETERS = ("python", "node", "ruby", "perl", "bash", "sh", "zsh")


@dataclass(frozen=True)
class ProcessSnapshot:
    """One process. A field that the system does not disclose, as for another user's process, is empty.

    `started_at` is in seconds since 1970. `home` is VESTAL_HOME in the environment of the process: only
    Vestal's own processes and what they started have it.
    """

    pid: int
    ppid: int = 0
    name: str = ""
    arguments: tuple[str, ...] = ()
    exe: str = ""
    user: str = ""
    started_at: float = 0.0
    home: str = ""

    @property
    def words(self) -> tuple[str, ...]:
        """Return the words of the command line, without the interpreter if the process runs a script."""
        given = self.arguments
        if len(given) < 2 or given[1].startswith("-"):
            return given
        # The interpreter of a framework build on macOS is named `Python`.
        is_script = PurePath(given[0]).name.lower().rstrip("0123456789.") in INTERPRETERS
        return given[1:] if is_script else given

    @property
    def program(self) -> str:
        """Return the name of the program: `ollama` for `/opt/homebrew/bin/ollama serve`."""
        return PurePath(self.words[0]).name if self.words else self.name

    @property
    def command(self) -> str:
        """Return the program's first argument that is not an option, such as `serve`; "" for none."""
        return next((word for word in self.words[1:] if not word.startswith("-")), "")
