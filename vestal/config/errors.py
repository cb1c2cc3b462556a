"""What can be wrong with a configuration.

ConfigError
    one or more problems, each a sentence that names the place, the key and the remedy
"""

from collections.abc import Sequence

EXIT_CODE = 78  # EX_CONFIG of sysexits.h; supervisors do not restart a program that ends with it


class ConfigError(Exception):
    """The configuration cannot be used. `problems` holds one sentence for each fault."""

    code = "bad_configuration"
    retryable = False

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))
