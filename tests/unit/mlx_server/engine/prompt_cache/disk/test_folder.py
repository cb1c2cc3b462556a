"""The folder of block files: a file is whole or absent; temporary files of dead writers are deleted, others
stay.
"""

import errno
import os
import shutil
import subprocess

import pytest

from mlx_server.engine.prompt_cache.disk import folder as module
from mlx_server.engine.prompt_cache.disk.folder import BlockFolder


@pytest.fixture
def folder(tmp_path):
    made = BlockFolder(tmp_path / "a" / "prompts")
    made.open()
    return made


def names(folder) -> set[str]:
    return set(os.listdir(folder.path)) - {module._BIRTH}


def aside(folder, writer: str, age_s: float = 0.0):
    path = folder.path / f"key.{writer}.tmp"
    path.write_bytes(b"half")
    written = path.stat().st_mtime - age_s
    os.utime(path, (written, written))


@pytest.fixture(scope="module")
def dead_pid():
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_written_cache_file_is_found_when_the_folder_is_opened_again(folder):
    folder.write("k", [b"ab", memoryview(b"cd")])
    assert folder.read("k") == b"abcd"
    assert BlockFolder(folder.path).open().files == (("k", 4),)
    assert folder.path.stat().st_mode & 0o777 == 0o700
    folder.remove("k")
    folder.remove("k")
    with pytest.raises(FileNotFoundError):
        folder.read("k")


def test_opened_cache_folder_lists_the_least_recently_used_file_first(folder):
    for at, key in enumerate("abc"):
        folder.write(key, [b"x"])
        os.utime(folder.path / f"{key}.safetensors", (at, at))
    folder.touch("a")
    assert [key for key, _ in folder.open().files] == ["b", "c", "a"]


def test_opened_cache_folder_deletes_temporary_files_of_dead_writers(folder, dead_pid):
    for number in range(1000):
        aside(folder, f"{dead_pid}-abc-{number}")
    assert folder.open().swept == 1000
    assert names(folder) == set()


def test_opened_cache_folder_keeps_temporary_files_of_running_writers_until_too_old(folder):
    aside(folder, f"{os.getppid()}-abc-1")
    aside(folder, f"{os.getpid()}-{module._RUN_ID}-2")
    aside(folder, "stranger")
    assert folder.open().swept == 0
    aside(folder, f"{os.getppid()}-abc-3", age_s=7200)
    aside(folder, "old stranger", age_s=7200)
    assert folder.open().swept == 2


def test_opened_cache_folder_deletes_temporary_files_of_an_earlier_process_with_our_pid(folder):
    aside(folder, f"{os.getpid()}-earlier-1")
    aside(folder, f"{10**30}-x-1")
    assert folder.open().swept == 2


def test_opened_cache_folder_ignores_foreign_files(folder):
    (folder.path / "notes.txt").write_text("mine")
    (folder.path / "d.safetensors").mkdir()
    (folder.path / "l.safetensors").symlink_to("nowhere")
    assert folder.open().files == ()
    assert names(folder) == {"notes.txt", "d.safetensors", "l.safetensors"}


def test_failed_write_of_a_cache_file_keeps_the_old_file_and_leaves_no_temporary_file(folder):
    class Full:
        def __len__(self):
            return 1

    folder.write("k", [b"old"])
    with pytest.raises(TypeError):
        folder.write("k", [b"new", Full()])
    assert folder.read("k") == b"old"
    assert names(folder) == {"k.safetensors"}


def test_cache_folder_whose_path_is_a_file_raises_os_error(tmp_path):
    (tmp_path / "f").write_text("")
    blocked = BlockFolder(tmp_path / "f")
    with pytest.raises(OSError):
        blocked.open()
    with pytest.raises(OSError) as error:
        blocked.write("k", [b""])
    assert error.value.errno == errno.ENOTDIR
    assert BlockFolder(tmp_path / "f" / "g").identity() is None


def test_identity_of_a_cache_folder_changes_when_it_is_deleted_and_created_again(folder):
    before = folder.identity()
    BlockFolder(folder.path).open()
    folder.write("k", [b""])
    assert folder.identity() == before
    shutil.rmtree(folder.path)
    assert folder.identity() is None
    folder.open()
    assert folder.identity() not in (None, before)


def test_hidden_file_of_macos_is_no_block_of_the_cache(folder):
    """On exFAT and network shares, macOS keeps a file's attributes in a file with the prefix `._`."""
    folder.write("k", [b"x"])
    (folder.path / "._k.safetensors").write_bytes(bytes(4096))
    assert folder.open().files == (("k", 1),)
