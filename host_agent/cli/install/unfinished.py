"""Remember that an installation has begun and is not completed, so that the next one loads every job anew.

The files of the jobs are written before the jobs are loaded. After an interruption, the files therefore no
longer show which jobs still run with their old settings.
"""

from pathlib import Path

from vestal.config import Home


def begin(home: Home) -> None:
    """Record that an installation has begun, by creating a marker file in the home folder. Called before the
    first file of a job is written.
    """
    _marker(home).touch(mode=0o600)


def complete(home: Home) -> None:
    """Record that the installation is completed, by deleting the marker file that `begin` created. Called
    after the last job was loaded or removed.
    """
    _marker(home).unlink(missing_ok=True)


def exists(home: Home) -> bool:
    """Return whether an installation of this home was interrupted or has failed, and none has been completed
    since.
    """
    return _marker(home).exists()


def _marker(home: Home) -> Path:
    return home.root / "install_unfinished"  # not in `run`, whose files `vestal down` deletes
