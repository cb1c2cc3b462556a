"""The error of a configuration that cannot be used."""

from collections.abc import Sequence


class ConfigError(Exception):
    """The configuration cannot be used. `problems` has one sentence for each mistake."""

    code = "bad_configuration"
    retryable = False

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))
