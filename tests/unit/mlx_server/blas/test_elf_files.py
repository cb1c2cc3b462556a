"""A shared library counts as complete only if it was written to its end, for this kind of processor."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_server.blas.elf_files import is_complete

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ELF files are those of Linux")

LIBRARY = next((Path(sysconfig.get_path("platlib")) / "msgspec").glob("_core*.so"))
CONTENT = LIBRARY.read_bytes()


def test_library_of_an_installed_package_is_complete_and_a_missing_one_is_not(tmp_path):
    assert is_complete(LIBRARY)
    assert not is_complete(tmp_path / "missing.so")


@settings(max_examples=50, deadline=None)
@given(st.integers(0, len(CONTENT) - 1), st.booleans())
def test_library_whose_end_is_missing_or_consists_of_zeros_is_not_complete(tmp_path_factory, end, has_zeros):
    part = tmp_path_factory.getbasetemp() / "part.so"
    part.write_bytes(CONTENT[:end] + bytes(len(CONTENT) - end) * has_zeros)
    if has_zeros and end > len(CONTENT) - 64:  # only the end of the last section's header is missing
        is_complete(part)
    else:
        assert not is_complete(part)


def test_library_whose_first_header_was_not_written_is_not_complete(tmp_path):
    (tmp_path / "a.so").write_bytes(bytes(64) + CONTENT[64:])
    assert not is_complete(tmp_path / "a.so")


def test_library_for_another_kind_of_processor_is_not_complete(tmp_path):
    (tmp_path / "a.so").write_bytes(CONTENT[:18] + b"\xf3\x00" + CONTENT[20:])  # RISC-V
    assert not is_complete(tmp_path / "a.so")
