"""A process as it was seen. Pure data: who judges it need not touch the machine."""

from dataclasses import dataclass
from pathlib import PurePath

INTERPRETERS = ("python", "node", "ruby", "perl", "bash", "sh", "zsh")


@dataclass(frozen=True)
class ProcessSeen:
    """`started_at` in seconds since 1970. What the system does not tell of another user's process is empty.

    `home` is the VESTAL_HOME in its environment: a Vestal, or something that one has started.
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
        """The command line without an interpreter before it: a script is named by its own name."""
        given = self.arguments
        is_script = len(given) > 1 and PurePath(given[0]).name.rstrip("0123456789.") in INTERPRETERS
        return given[1:] if is_script and not given[1].startswith("-") else given

    @property
    def program(self) -> str:
        """The name of the program: `ollama` for `/opt/homebrew/bin/ollama serve`."""
        return PurePath(self.words[0]).name if self.words else self.name

    @property
    def command(self) -> str:
        """The first word after the program that is no option: `serve`."""
        return next((word for word in self.words[1:] if not word.startswith("-")), "")
