"""Assessing the disk, the Python and the BLAS."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from host_agent.doctor.installation import disk_full, engine_blas, python_build

GIB = 1024**3


@pytest.mark.parametrize(
    ("free_bytes", "free_files", "level"),
    [(100 * 1024**2, None, "fault"), (2 * GIB, 10, "note"), (50 * GIB, 10, "ok"), (50 * GIB, 0, "fault")],
)
def test_doctor_reports_a_disk_with_few_free_bytes_or_files_as_a_fault(
    free_bytes: int, free_files: int | None, level: str
):
    assert disk_full.assess_disk(Path("/x"), free_bytes, free_files).level == level


@pytest.mark.parametrize(
    ("built_for", "apple", "level", "words"),
    [
        ("arm64", True, "ok", ""),
        ("x86_64", True, "fault", "arm64 Python"),
        ("x86_64", False, "fault", "another machine"),
    ],
)
def test_doctor_reports_a_python_built_for_x86_64_as_a_fault(
    built_for: str, apple: bool, level: str, words: str
):
    found = python_build.assess_build(built_for, apple, "/usr/local/bin/python3")
    assert found.level == level
    assert words in found.remedy


@pytest.mark.parametrize(
    ("blas", "level"),
    [(None, "note"), ("", "fault"), ("MLX's reference BLAS", "fault"), ("none", "fault"), ("OpenBLAS", "ok")],
)
def test_doctor_reports_any_known_blas_library_but_openblas_as_a_fault(blas: str | None, level: str):
    assert engine_blas.assess_blas(blas).level == level


def test_doctor_reports_no_fault_of_an_exfat_disk_whose_files_macos_does_not_count(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    figures = (131_072, 4096, 2**28, 2**27, 2**27, 1, 0, 0, 0, 255)
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result(figures))
    assert disk_full.check_disk(tmp_path).level == "ok"
