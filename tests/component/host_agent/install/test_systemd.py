"""`vestal install`, `install --show` and `uninstall` as commands, with fakes of systemctl and loginctl."""

from __future__ import annotations

import stat
from pathlib import Path

from tests.component.host_agent.install.conftest import Machine, names


def units(linux: Machine) -> Path:
    return linux.user / ".config" / "systemd" / "user"


def test_install_on_linux_enables_and_starts_the_systemd_units_and_enables_lingering(linux):
    done = linux.vestal_process("install", VESTAL_TOKEN="secret-1")
    assert done.returncode == 0, done.stderr
    assert linux.calls() == [
        "systemctl --user daemon-reload",
        "systemctl --user enable vestal-agent.service",
        "systemctl --user start vestal-agent.service",
        "systemctl --user enable vestal-recover.timer",
        "systemctl --user start vestal-recover.timer",
        "loginctl enable-linger",
    ]
    assert names(units(linux)) == {"vestal-agent.service", "vestal-recover.service", "vestal-recover.timer"}
    for path in units(linux).iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert "secret-1" not in path.read_text()
    assert "Lingering is on now" in done.stdout


def test_install_repeated_on_linux_restarts_only_systemd_units_that_changed(linux):
    linux.vestal("install")
    linux.calls()
    linux.vestal("install")
    assert not any("restart" in call or "daemon-reload" in call for call in linux.calls())
    linux.vestal("install", VESTAL_MLX_PORT="12345")
    calls = linux.calls()
    assert calls[0] == "systemctl --user daemon-reload"
    assert "systemctl --user restart vestal-agent.service" in calls


def test_install_on_linux_says_how_to_enable_lingering_if_it_was_refused(linux):
    linux.refuse("enable-linger", "1 Could not enable linger: Access denied")
    done = linux.vestal("install")
    assert done.returncode == 0
    assert "sudo loginctl enable-linger $USER" in done.stdout
    assert "end at your logout" in linux.vestal("install", "--show").stdout


def test_install_without_a_systemd_user_manager_prints_one_sentence_and_writes_no_file(linux):
    (linux.fake_state / "no-manager").touch()
    done = linux.vestal("install")
    assert done.returncode == 69
    (line,) = done.stderr.splitlines()
    assert "This user's systemd does not answer (Failed to connect to bus: No medium found)" in line
    assert names(linux.user) == set()
    shown = linux.vestal("install", "--dry-run")
    assert shown.returncode == 0 and "would not be installed here: This user" in shown.stdout
    assert "would write" in shown.stdout and names(linux.user) == set()


def test_uninstall_on_linux_disables_the_systemd_units_and_removes_their_files(linux):
    linux.vestal("install")
    linux.calls()
    done = linux.vestal("uninstall")
    assert done.returncode == 0, done.stdout
    assert linux.calls() == [
        "systemctl --user disable --now vestal-recover.timer",
        "systemctl --user disable --now vestal-agent.service",
        "systemctl --user daemon-reload",
    ]
    assert names(units(linux)) == set()
    assert "loginctl disable-linger" in done.stdout


def test_install_show_on_linux_prints_the_agents_pid_and_the_timers_state(linux):
    linux.vestal("install")
    done = linux.vestal("install", "--show")
    assert done.returncode == 0, done.stdout
    assert "agent    active (running), PID 4242, started 3 times" in done.stdout
    assert "recover  active (waiting)" in done.stdout


def test_install_daemon_on_linux_is_refused_and_suggests_lingering(linux):
    done = linux.vestal("install", "--daemon")
    assert done.returncode == 69 and "lingering" in done.stderr
