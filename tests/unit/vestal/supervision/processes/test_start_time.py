from __future__ import annotations

import ctypes
import time

from vestal.supervision import start_time
from vestal.supervision.processes.start_time import BsdInfo, parse_ps


def test_start_time_of_a_missing_process_is_none():
    assert start_time(2**22 + 1) is None


def test_ps_output_gives_the_start_time_of_a_process_and_none_for_a_zombie():
    started = parse_ps("S+   Sun Nov 16 10:31:05 2025\n")
    assert started is not None
    assert time.strftime("%H:%M:%S", time.localtime(started)) == "10:31:05"
    assert parse_ps("Z    Sun Nov 16 10:31:05 2025\n") is None
    assert parse_ps("") is None


def test_bsd_info_has_the_size_and_offset_of_the_macos_kernels_struct():
    assert ctypes.sizeof(BsdInfo) == 136
    assert BsdInfo.start_tvsec.offset == 120
