"""How service managers are asked and told: real commands, or only their names with `--dry-run`."""

import subprocess
from dataclasses import dataclass

ASK_WITHIN_S = 20.0
ACT_WITHIN_S = 180.0  # a stop waits for the drain and the six stages
NOT_FOUND, NO_ANSWER = 127, 124


@dataclass(frozen=True)
class Done:
    """`text` is what the command wrote, to stdout and to stderr."""

    exit_code: int
    text: str


class Commands:
    """Runs them."""

    dry = False

    def ask(self, *command: str) -> Done:
        """A command that only looks."""
        return _run(command, ASK_WITHIN_S)

    def act(self, *command: str) -> Done:
        """A command that changes something."""
        return _run(command, ACT_WITHIN_S)


class Shown(Commands):
    """Asks, and says what it would do."""

    dry = True

    def act(self, *command: str) -> Done:
        print(f"would run {' '.join(command)}")
        return Done(0, "")


def _run(command: tuple[str, ...], within_s: float) -> Done:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=within_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Done(NO_ANSWER, f"no answer within {within_s:.0f} s")
    except OSError as error:
        return Done(NOT_FOUND, f"{command[0]}: {error.strerror}")
    return Done(done.returncode, done.stdout)
