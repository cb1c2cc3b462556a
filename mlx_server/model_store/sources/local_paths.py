"""Find the folders and files that `path:` sources name."""

from __future__ import annotations

import os.path
from pathlib import Path

from mlx_server.model_store.sources.source import PathSource
from vestal.config import Config


def source_path(config: Config, source: PathSource) -> Path:
    """Return the absolute path of `source`. `~` means the user's home, and a relative path begins in the
    folder of the configuration file.

    The home of a user whom this machine does not have (`~name`) is taken for the name of a folder.
    """
    base = config.file.parent if config.file else Path.cwd()
    return (base / os.path.expanduser(source.path)).absolute()
