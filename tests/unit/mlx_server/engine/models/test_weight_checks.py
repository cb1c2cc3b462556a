"""Detection of weights that changed since their installation, since an earlier load, or during a load."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from mlx_server.engine.models.weights.checks import UsedFile, check_before_use, check_unchanged, stamp_of
from mlx_server.engine.models.weights.digest_file import DigestFile
from mlx_server.engine.models.weights.digests import FileDigest, Installed, Judgement, Stamp, judge
from mlx_server.engine.models.weights.verification import Verification
from mlx_server.model_store import layout
from mlx_server.model_store.files import integrity
from mlx_server.model_store.files.weight_files import UnreadableModel

NAME, MODEL = "model.safetensors", "chat:latest"
STAMP, TOUCHED = Stamp(10, 1000, 7), Stamp(10, 2000, 7)
GOOD, OTHER = "a" * 64, "b" * 64


@pytest.mark.parametrize(
    ("stamp", "installed", "earlier", "judgement"),
    [
        (STAMP, Installed(GOOD, 10, 1000), None, Judgement(GOOD, False)),  # as installed
        (TOUCHED, Installed(GOOD, 10, 1000), None, Judgement(GOOD, True)),  # touched since
        (TOUCHED, Installed(GOOD, 10, 1000), FileDigest(TOUCHED, GOOD), Judgement(GOOD, False)),  # read since
        (TOUCHED, Installed(GOOD, 10, 1000), FileDigest(TOUCHED, OTHER), Judgement(GOOD, True)),
        (STAMP, Installed(GOOD), None, Judgement(GOOD, True)),  # only a hash is recorded
        (STAMP, None, None, Judgement(None, False)),  # a folder of the user's, never read
        (STAMP, None, FileDigest(STAMP, GOOD), Judgement(GOOD, False)),
        (TOUCHED, None, FileDigest(STAMP, GOOD), Judgement(None, False)),  # the user's new version
        (Stamp(10, 1000, 8), None, FileDigest(STAMP, GOOD), Judgement(None, False)),  # replaced
        (STAMP, None, FileDigest(STAMP, GOOD, is_damaged=True), Judgement(GOOD, True)),
        (STAMP, Installed(GOOD, 10, 1000), FileDigest(STAMP, GOOD, is_damaged=True), Judgement(GOOD, True)),
    ],
)
def test_weights_file_with_a_known_digest_is_compared_before_use_unless_known_to_be_unchanged(
    stamp, installed, earlier, judgement
):
    assert judge(stamp, installed, earlier) == judgement


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with weights, and a manifest that records their checksums."""
    made = tmp_path / "model"
    made.mkdir()
    (made / NAME).write_bytes(b"weights" * 1000)
    write_manifest(made, integrity.compute_checksums(made))
    return made


def write_manifest(folder: Path, checksums: object) -> None:
    (folder / layout.MANIFEST).write_text(json.dumps({"name": "m", integrity.MANIFEST_KEY: checksums}))


def flip_a_bit(path: Path, *, keeps_time: bool = False) -> None:
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=times if keeps_time else (1, 1))


def check(folder: Path, digests: DigestFile | None = None) -> tuple[list[UsedFile], int]:
    """Return the files, and how many chunks were read."""
    checking, chunks = check_before_use(folder, digests or DigestFile()), 0
    while True:
        try:
            next(checking)
            chunks += 1
        except StopIteration as end:
            return end.value, chunks


def test_weights_check_of_a_file_with_the_recorded_size_and_time_reads_nothing(folder: Path):
    (used,), chunks = check(folder)
    assert chunks == 0
    assert used == UsedFile(folder / NAME, stamp_of(folder / NAME), used.sha256)


def test_weights_check_of_a_file_with_a_flipped_bit_raises_and_names_the_file(folder: Path):
    flip_a_bit(folder / NAME)
    with pytest.raises(UnreadableModel, match=f"{NAME}: it has changed since it was installed"):
        check(folder)


def test_weights_check_of_a_touched_file_reads_it_only_once_even_across_processes(folder: Path):
    os.utime(folder / NAME, ns=(2, 2))
    digests = folder.parent / "digests.json"
    assert check(folder, DigestFile(digests))[1] == 1
    assert check(folder, DigestFile(digests))[1] == 0


def test_weights_check_with_only_a_recorded_hash_compares_the_hash(folder: Path):
    write_manifest(folder, {NAME: {"sha256": "0" * 64}})
    with pytest.raises(UnreadableModel, match="recorded 000000000000"):
        check(folder)


@pytest.mark.parametrize("checksums", [None, {}, [], {NAME: 3}, {NAME: {"sha256": 3}}, {"other": {}}])
def test_weights_check_without_a_recorded_checksum_passes(folder: Path, checksums):
    write_manifest(folder, checksums)
    (used,), chunks = check(folder)
    assert (used.sha256, chunks) == (None, 0)


@pytest.mark.parametrize("change", ["truncated", "replaced", "deleted"])
def test_weights_file_that_changes_during_its_load_raises_with_the_remedy(folder: Path, change: str):
    used, _ = check(folder)
    path = folder / NAME
    if change == "truncated":
        os.truncate(path, 100)
    elif change == "replaced":
        (folder / "new").write_bytes(path.read_bytes())
        os.replace(folder / "new", path)
    else:
        path.unlink()
    with pytest.raises(UnreadableModel, match=f"{NAME}: it was changed while it was being read; ask again"):
        check_unchanged(used)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": 3}', '{"files": {"x": {"sha256": 3}}}', "\xff"])
def test_damaged_file_of_weight_digests_counts_as_empty_and_is_written_again(tmp_path: Path, text: str):
    path = tmp_path / "digests.json"
    path.write_text(text, "latin-1")
    digests = DigestFile(path)
    assert digests.get(tmp_path / "x") is None
    weights = tmp_path / "weights"
    weights.touch()
    digests.put(weights, FileDigest(STAMP, GOOD, is_damaged=True))
    assert DigestFile(path).get(weights) == FileDigest(STAMP, GOOD, is_damaged=True)


def test_file_of_weight_digests_drops_entries_of_deleted_files(tmp_path: Path):
    digests = DigestFile(tmp_path / "digests.json")
    one, two = tmp_path / "one", tmp_path / "two"
    one.touch()
    two.touch()
    digests.put(one, FileDigest(STAMP, GOOD))
    one.unlink()
    digests.put(two, FileDigest(STAMP, GOOD))
    assert DigestFile(tmp_path / "digests.json").get(one) is None


@pytest.mark.parametrize("error", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_digest_of_an_unreachable_file_is_kept_and_prevents_no_other_digest(tmp_path, monkeypatch, error):
    """Such a file of one model once prevented the loads of changed models and ended all verification."""
    digests = DigestFile(tmp_path / "digests.json")
    gone, here = tmp_path / "volume" / "weights", tmp_path / "weights"
    digests.put(gone, FileDigest(STAMP, GOOD, is_damaged=True))
    real = os.stat

    def stat(path, *more, **options):
        if str(path) == str(gone):
            raise OSError(error, os.strerror(error), str(path))
        return real(path, *more, **options)

    monkeypatch.setattr(os, "stat", stat)
    digests.put(here, FileDigest(STAMP, OTHER))
    stored = DigestFile(tmp_path / "digests.json")
    assert stored.get(gone) == FileDigest(STAMP, GOOD, is_damaged=True)
    assert stored.get(here) == FileDigest(STAMP, OTHER)


def test_damage_recorded_by_one_engine_is_not_overwritten_by_an_engine_that_read_the_digests_earlier(
    tmp_path: Path,
):
    """An engine that was being replaced found the damage, and its successor wrote its own copy over it."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.touch()
    two.touch()
    path = tmp_path / "digests.json"
    DigestFile(path).put(one, FileDigest(STAMP, GOOD))
    old, new = DigestFile(path), DigestFile(path)
    assert old.get(one) == new.get(one) == FileDigest(STAMP, GOOD)
    old.put(one, FileDigest(STAMP, GOOD, is_damaged=True))
    assert new.get(one) == FileDigest(STAMP, GOOD, is_damaged=True)
    new.put(two, FileDigest(STAMP, OTHER))
    new.put(one, FileDigest(STAMP, GOOD), keeps_damage=True)
    assert DigestFile(path).get(one) == FileDigest(STAMP, GOOD, is_damaged=True)
    assert DigestFile(path).get(two) == FileDigest(STAMP, OTHER)
    new.put(one, FileDigest(TOUCHED, GOOD), keeps_damage=True)
    assert old.get(one) == FileDigest(TOUCHED, GOOD)


def test_digest_that_cannot_be_written_is_remembered_and_written_by_the_next_put(tmp_path: Path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.touch()
    two.touch()
    (tmp_path / "folder").touch()  # a file is in the way
    digests = DigestFile(tmp_path / "folder" / "digests.json")
    digests.put(one, FileDigest(STAMP, GOOD, is_damaged=True))
    assert digests.get(one) == FileDigest(STAMP, GOOD, is_damaged=True)
    (tmp_path / "folder").unlink()
    digests.put(two, FileDigest(STAMP, OTHER))
    stored = DigestFile(tmp_path / "folder" / "digests.json")
    assert stored.get(one) == FileDigest(STAMP, GOOD, is_damaged=True)
    assert stored.get(two) == FileDigest(STAMP, OTHER)


class Verified:
    """A verification of the model in `folder` whose thread does not pause."""

    def __init__(self, folder: Path) -> None:
        self.woken, self.folder, self.digests = 0, folder, folder.parent / "digests.json"
        self.verification = Verification(DigestFile(self.digests), self._wake, lambda seconds: None)

    def _wake(self) -> None:
        self.woken += 1

    def load(self, *models: str) -> None:
        for model in models:
            self.verification.loaded(model, check(self.folder, self.verification.digests)[0])

    def serve(self, model: str = MODEL) -> list[tuple[str, str]]:
        self.verification.served(model)
        self.verification.wait(10)
        return self.verification.take_damaged()


@pytest.fixture
def verified(folder: Path) -> Verified:
    return Verified(folder)


def test_weights_without_a_digest_are_hashed_and_their_digest_stored_only_after_the_first_answer(verified):
    write_manifest(verified.folder, None)
    verified.load(MODEL)
    assert not verified.digests.exists()
    assert verified.serve() == []
    assert check(verified.folder, DigestFile(verified.digests))[0][0].sha256 is not None


def test_weights_verification_reports_a_changed_bit_for_every_model_that_uses_the_file(verified):
    """A disk that returns a wrong byte changes neither the size nor the time of the file."""
    verified.load(MODEL)
    assert verified.serve() == []
    again = Verified(verified.folder)
    flip_a_bit(verified.folder / NAME, keeps_time=True)
    again.load(MODEL, "adapted:latest")
    damaged = again.serve()
    assert [model for model, _ in damaged] == [MODEL, "adapted:latest"]
    assert NAME in damaged[0][1] and "fetch the model again" in damaged[0][1]
    assert again.woken == 1
    with pytest.raises(UnreadableModel, match="it has changed"):  # in the next engine too, before use
        check(verified.folder, DigestFile(verified.digests))


def test_weights_file_found_damaged_can_be_loaded_once_its_content_is_good_again(verified):
    """A page of the page cache was damaged, and the disk has the right one."""
    flip_a_bit(verified.folder / NAME, keeps_time=True)
    verified.load(MODEL)
    assert verified.serve()
    flip_a_bit(verified.folder / NAME, keeps_time=True)
    (used,), chunks = check(verified.folder, DigestFile(verified.digests))
    assert used.was_read and chunks == 1
    assert check(verified.folder, DigestFile(verified.digests))[1] == 0


@pytest.mark.parametrize("change", ["truncated", "deleted"])
def test_weights_verification_of_a_file_changed_after_its_load_reports_no_damage(verified, change, capsys):
    """The weights in memory are the earlier content: they are whole, but nobody can compare them any more."""
    verified.load(MODEL)
    path = verified.folder / NAME
    os.truncate(path, 10) if change == "truncated" else path.unlink()
    assert verified.serve() == []
    assert "weights_not_verified" in capsys.readouterr().err


def test_weights_verification_of_an_unloaded_model_reads_nothing(verified):
    verified.load(MODEL)
    verified.verification.unloaded(MODEL)
    assert verified.serve() == []
    assert not verified.digests.exists()


def test_weights_verification_reads_only_once_a_file_that_two_models_share(verified, capsys):
    verified.load(MODEL, "adapted:latest")
    verified.serve()
    verified.serve("adapted:latest")
    assert capsys.readouterr().err.count("weights_verified") == 1


class BrokenDigests(DigestFile):
    """Digests that cannot be stored, for a reason that nobody foresaw."""

    def put(self, file: Path, digest: FileDigest, *, keeps_damage: bool = False) -> None:
        raise ValueError(f"{file} cannot be stored")


def test_weights_verification_reports_damage_and_continues_although_no_digest_can_be_stored(folder, capsys):
    """The thread once ended with the first error, and nothing was verified until the engine was restarted."""
    verified = Verified(folder)
    flip_a_bit(folder / NAME, keeps_time=True)
    verified.load(MODEL)
    verified.verification.digests = BrokenDigests()
    assert [model for model, _ in verified.serve()] == [MODEL]
    assert verified.woken == 1
    flip_a_bit(folder / NAME)
    write_manifest(folder, integrity.compute_checksums(folder))
    verified.load("next:latest")
    verified.serve("next:latest")
    assert capsys.readouterr().err.count("weights_verification_failed") == 2
