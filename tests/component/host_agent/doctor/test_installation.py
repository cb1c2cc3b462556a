"""Missing packages, a home or disk that cannot be written, ports in use: all real."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from host_agent.doctor.installation import disk_full, home_folder, missing_dependency, port_in_use
from tests.component.host_agent.doctor.conftest import CHILDREN, faults, until
from vestal.config import Config

REPO = Path(__file__).resolve().parents[4]
Run = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of an environment in which nothing is installed."""
    folder = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=120)
    return str(folder / "bin" / "python")


def test_doctor_names_each_package_that_cannot_be_imported(configure, bare_python: str):
    found = faults(missing_dependency.diagnose(configure(), bare_python))
    assert [finding.sentence for finding in found] == [
        f"{name} cannot be imported." for name in missing_dependency.PACKAGES
    ]
    assert "No module named 'mlx'" in found[0].evidence
    assert "make up" in found[0].remedy


def test_doctor_reports_the_exit_code_of_a_package_whose_import_aborts_python(configure, bare_python: str):
    (site,) = (Path(bare_python).parents[1] / "lib").glob("python*/site-packages")
    (site / "uvicorn.py").write_text("import os; os.abort()")
    found = faults(missing_dependency.diagnose(configure(), bare_python))
    (site / "uvicorn.py").unlink()
    assert f"ended with exit code {-signal.SIGABRT}" in found[-1].sentence
    assert "Delete .venv" in found[-1].remedy


def test_doctor_reports_a_home_folder_whose_parent_is_a_file_as_a_fault(configure, user: Path):
    (user / "file").write_text("")
    (found, *_) = faults(home_folder.diagnose(configure(VESTAL_HOME=user / "file" / "below")))
    assert f"{user / 'file'} is in the way" in found.sentence
    assert "VESTAL_HOME" in found.remedy


def test_doctor_check_of_an_existing_home_folder_leaves_no_file_behind(config: Config):
    before = sorted(config.home.root.rglob("*"))
    assert [found.level for found in home_folder.diagnose(config)] == ["ok"]
    assert sorted(config.home.root.rglob("*")) == before


def test_doctor_check_of_a_missing_home_folder_does_not_create_it(configure, user: Path):
    config = configure(VESTAL_HOME=user / "new")
    assert [found.level for found in home_folder.diagnose(config)] == ["ok"]
    assert not config.home.root.exists()


def test_doctor_reports_a_token_readable_by_other_users_as_a_fault(config: Config):
    config.home.token.write_text("secret")
    config.home.token.chmod(0o644)
    (found,) = faults(home_folder.diagnose(config))
    assert found.remedy == f"`chmod 600 {config.home.token}`"


def test_doctor_reports_a_damaged_journal_as_a_fault_and_leaves_it_unchanged(config: Config):
    config.home.journal_db.write_bytes(b"no database" * 100)
    (found,) = faults(home_folder.diagnose(config))
    assert "journal is damaged" in found.sentence
    assert config.home.journal_db.read_bytes().startswith(b"no database"), "it is not changed"


CHECKS = """
import pathlib, sys
from host_agent.doctor.installation import disk_full, home_folder
folder = pathlib.Path(sys.argv[1])
print(disk_full.check_disk(folder).level, home_folder.check_folder(folder))
"""
MOUNT = 'mount -t tmpfs -o "$1" none "$2" || exit 99; exec "$3" -c "$4" "$2"'
NOT_MOUNTED = (1, 99)  # `unshare` is not allowed, or `mount` is not


def check_mounted_disk(folder: Path, options: str) -> str:
    """Mount a small file system, and return what the checks print there; skip if it cannot be mounted."""
    if shutil.which("unshare") is None:
        pytest.skip("no `unshare` to mount a small disk with")
    command = ["unshare", "-rm", "sh", "-c", MOUNT, "sh", options, str(folder), sys.executable, CHECKS]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=60)
    if done.returncode in NOT_MOUNTED and "Traceback" not in done.stderr:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    return done.stdout + done.stderr


def test_doctor_reports_a_disk_with_one_free_megabyte_as_a_fault(tmp_path: Path):
    assert check_mounted_disk(tmp_path, "size=1m") == "fault None\n"


def test_doctor_reports_a_read_only_disk_as_a_fault(tmp_path: Path):
    assert "cannot be written (Read-only file system)" in check_mounted_disk(tmp_path, "ro")


def test_doctor_reports_one_finding_for_a_disk_that_several_folders_share(config: Config):
    assert [found.name for found in disk_full.diagnose(config)] == ["disk_full"]


def test_doctor_reports_the_pid_of_a_program_that_holds_a_configured_port(configure, run: Run):
    config = configure()
    process = run(sys.executable, str(CHILDREN / "answers_http.py"), str(config.mlx.port))
    until(lambda: faults(port_in_use.diagnose(config)), "it listens")
    (found,) = faults(port_in_use.diagnose(config))
    assert f"Port {config.mlx.port} is held by" in found.sentence
    assert f"PID {process.pid}" in found.sentence
    assert "answers_http.py" in found.evidence
    assert f"kill {process.pid}" in found.remedy and "VESTAL_MLX_PORT" in found.remedy


def test_doctor_reports_both_programs_if_two_configured_ports_are_held(configure, run: Run):
    config = configure()
    for port in (config.mlx.port, config.agent.port):
        run(sys.executable, str(CHILDREN / "answers_http.py"), str(port))
    until(lambda: len(faults(port_in_use.diagnose(config))) == 2, "both are named")


def test_doctor_reports_free_ports_as_ok(configure):
    (found,) = port_in_use.diagnose(configure())
    assert (found.level, found.name) == ("ok", "port_in_use")
    assert "no agent answers" in found.sentence
