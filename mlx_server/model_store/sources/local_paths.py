"""Find the folders and files that `path:` sources name."""

from __future__ import annotations

import os.path
from pathlib import Path

from mlx_server.model_store.sources.source import PathSource
from vestal.config import Config


def source_path(config: Config, source: PathSource) -> Path:
    """Return the absolute path of `source`. `~` at its beginning means the user's home, and `~name` the home
    of the user `name`. If this machine has no such user, `~name` is the name of a folder.

    A relative path begins in the folder of the configuration file, or in the current folder if there is no
    configuration file.
    """
    base = config.file.parent if config.file else Path.cwd()
    return (base / os.path.expanduser(source.path)).absolute()
