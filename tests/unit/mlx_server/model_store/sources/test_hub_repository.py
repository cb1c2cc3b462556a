"""The list of a repository's files, as a hub gives it, and which lists are refused."""

from __future__ import annotations

import pytest

from mlx_server.model_store.errors import ModelStoreError
from mlx_server.model_store.sources.hub_repository import HubFile, Repository, wanted, write_outline
from mlx_server.model_store.sources.source import HubSource

LARGE = 5 * 1024**2


@pytest.mark.parametrize(
    "name", ["../victim.json", "a/../../victim.json", "/tmp/victim.json", "..", "", "a\0.json"]
)
def test_repository_with_a_file_outside_of_its_folder_is_refused(name):
    """HF_ENDPOINT may name any hub. Such a hub could once write files outside the model's folder."""
    with pytest.raises(ModelStoreError, match=r"org/m names the file .* Check HF_ENDPOINT") as caught:
        Repository("org/m", "c", (HubFile("config.json", 5), HubFile(name, LARGE)))
    assert caught.value.code == "fetch_failed"


@pytest.mark.parametrize("sha256", ["../../victim", "0" * 63, "G" * 64, ""])
def test_repository_with_a_file_whose_checksum_is_no_sha256_is_refused(sha256):
    """The hub's cache names a file by its checksum."""
    with pytest.raises(ModelStoreError, match="which is not a sha256"):
        Repository("org/m", "c", (HubFile("model.safetensors", LARGE, sha256),))


def test_write_outline_creates_a_subfolder_for_a_file_in_a_subfolder_of_the_repository(tmp_path):
    files = wanted("m", HubSource("org/m"), [HubFile("1_Pooling/large.json", LARGE, "0" * 64)])
    write_outline("m", Repository("org/m", "c", tuple(files)), tmp_path)
    assert (tmp_path / "1_Pooling" / "large.json").stat().st_size == LARGE
