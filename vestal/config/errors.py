"""The errors of a configuration or a state folder that cannot be used."""

from collections.abc import Sequence


class ConfigError(Exception):
    """The configuration cannot be used. `problems` has one sentence for each mistake."""

    code = "bad_configuration"
    retryable = False

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class StateFolderRefused(ConfigError):
    """This version of Vestal must not use the state folder: a newer version has written the folder, or the
    file with the folder's format may not be read or holds no number. Every command then fails except `vestal
    down`, which goes on with the default settings and deletes nothing in the folder.
    """

    code = "state_folder_refused"
