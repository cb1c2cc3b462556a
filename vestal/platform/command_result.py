"""What came of a command. Pure data: who judges it need not run any."""

from dataclasses import dataclass

NOT_FOUND, NO_ANSWER = 127, 124  # as a shell and timeout(1) say it


@dataclass(frozen=True)
class CommandResult:
    """`text` is what the command wrote, to stdout and to stderr; or why it could not be run to its end."""

    exit_code: int
    text: str
