"""`vestal install`, `install --show` and `uninstall` as commands, with a fake of launchctl."""

from __future__ import annotations

import json
import os
import plistlib
import signal
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.component.host_agent.install.conftest import REPO, Machine, names

NO_DOMAIN = "112 Bad request. Could not find domain for user gui: 501"
DISABLED = "119 Bootstrap failed: 119: Service is disabled"
INPUT_OUTPUT = "5 Bootstrap failed: 5: Input/output error"
GUI = f"gui/{os.getuid()}"
AGENT, RECOVER, SERVER = "dev.vestal.agent", "dev.vestal.recover", "dev.vestal.server"


def agents(mac: Machine) -> Path:
    return mac.user / "Library" / "LaunchAgents"


def load_commands(mac: Machine, label: str, kick: bool) -> list[str]:
    lines = [
        f"launchctl enable {GUI}/{label}",
        f"launchctl bootstrap {GUI} {agents(mac) / f'{label}.plist'}",
    ]
    return [*lines, f"launchctl kickstart {GUI}/{label}"] if kick else lines


def test_install_on_a_mac_writes_private_files_and_loads_the_launchd_jobs(mac):
    done = mac.vestal_process(
        "install", VESTAL_TOKEN="secret-1", VESTAL_DATABASE_URL="postgresql://u:secret-2@h/d"
    )
    assert done.returncode == 0, done.stderr
    assert mac.calls() == [*load_commands(mac, AGENT, kick=True), *load_commands(mac, RECOVER, kick=False)]
    for label in (AGENT, RECOVER):
        path = agents(mac) / f"{label}.plist"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        text = path.read_text()
        assert "secret-" not in text and (mac.user / ".vestal" / "token").read_text().strip() not in text
        keys = plistlib.loads(text.encode())
        assert Path(keys["StandardOutPath"]).parent.is_dir(), "launchd makes no folder for a log"
        assert keys["ProgramArguments"][0] == sys.executable
        assert keys["EnvironmentVariables"]["PATH"].split(":")[0] == str(mac.fake_state.parent / "bin")
        assert keys["EnvironmentVariables"]["VESTAL_HOME"] == str(mac.user / ".vestal")
    assert "VESTAL_DATABASE_URL, VESTAL_TOKEN" in done.stdout, "the secrets that are left out are named"


def test_install_repeated_on_a_mac_does_not_restart_running_launchd_jobs(mac):
    mac.vestal("install")
    mac.calls()
    done = mac.vestal("install")
    assert done.returncode == 0, done.stderr
    assert mac.calls() == [f"launchctl kickstart {GUI}/{AGENT}"], "kickstart does not restart a running job"


def test_install_repeated_on_a_mac_with_changed_settings_reloads_the_launchd_jobs(mac):
    mac.vestal("install")
    mac.calls()
    done = mac.vestal("install", VESTAL_MLX_PORT="12345")
    assert done.returncode == 0, done.stderr
    assert mac.calls() == [
        f"launchctl bootout {GUI}/{AGENT}",
        *load_commands(mac, AGENT, kick=True),
        f"launchctl bootout {GUI}/{RECOVER}",
        *load_commands(mac, RECOVER, kick=False),
    ]


def test_install_retries_a_launchctl_bootstrap_that_fails_once_with_error_5(mac):
    mac.refuse("bootstrap", INPUT_OUTPUT)
    done = mac.vestal("install")
    assert done.returncode == 0, done.stderr
    assert sum("bootstrap" in call for call in mac.calls()) == 3, "two jobs, one of them twice"
    assert mac.loaded() == {AGENT, RECOVER}


def test_install_reports_in_one_line_that_launchctl_bootstrap_failed_twice(mac):
    mac.refuse("bootstrap", INPUT_OUTPUT, INPUT_OUTPUT)
    done = mac.vestal("install")
    assert done.returncode == 69
    (line,) = done.stderr.splitlines()
    assert "failed twice: Bootstrap failed: 5: Input/output error" in line and "plutil -lint" in line


def test_install_on_a_mac_without_a_login_session_suggests_the_daemon_option(mac):
    mac.refuse("print", NO_DOMAIN)
    done = mac.vestal("install")
    assert done.returncode == 69
    (line,) = done.stderr.splitlines()
    assert f"no domain {GUI}" in line and "vestal install --daemon" in line
    assert mac.calls() == [], "nothing is loaded"
    assert names(agents(mac)) == {f"{AGENT}.plist", f"{RECOVER}.plist"}, "they start at the next login"


def test_install_show_reports_an_installation_that_failed_until_another_one_is_completed(mac):
    mac.refuse("bootstrap", DISABLED)
    failed = mac.vestal("install")
    assert failed.returncode == 69 and "disabled" in failed.stderr
    assert mac.loaded() == {RECOVER}, "the agent's problem does not keep the other job from being loaded"
    shown = mac.vestal("install", "--show")
    assert shown.returncode == 1
    assert "the last `vestal install` was not completed: run it again" in shown.stdout
    mac.calls()
    assert mac.vestal("install").returncode == 0
    assert f"launchctl bootout {GUI}/{RECOVER}" in mac.calls(), "every job is loaded anew"
    assert mac.vestal("install", "--show").returncode == 0


def test_uninstall_on_a_mac_stops_the_launchd_jobs_and_removes_their_files(mac):
    mac.vestal("install")
    mac.calls()
    done = mac.vestal_process("uninstall")
    assert done.returncode == 0, done.stdout
    assert mac.calls() == [f"launchctl bootout {GUI}/{RECOVER}", f"launchctl bootout {GUI}/{AGENT}"]
    assert mac.loaded() == set() and names(agents(mac)) == set()


def test_uninstall_of_launchd_jobs_that_are_not_loaded_succeeds(mac):
    mac.vestal("install")
    (mac.fake_state / "loaded").unlink()
    done = mac.vestal("uninstall")
    assert done.returncode == 0, done.stdout
    assert names(agents(mac)) == set()
    again = mac.vestal("uninstall")
    assert (again.returncode, again.stdout) == (0, "Nothing is installed.\n")


def test_uninstall_does_not_remove_the_file_of_a_launchd_job_that_it_cannot_stop(mac):
    mac.vestal("install")
    mac.refuse("bootout", "1 Boot-out failed: 1: Operation not permitted")
    done = mac.vestal("uninstall")
    assert done.returncode == 1
    assert "recover is not removed" in done.stdout
    assert names(agents(mac)) == {f"{RECOVER}.plist"}


def test_install_show_prints_the_state_pid_and_number_of_starts_of_each_launchd_job(mac):
    assert mac.vestal("install", "--show").returncode == 1, "nothing is installed"
    mac.vestal("install")
    done = mac.vestal_process("install", "--show")
    assert done.returncode == 0, done.stdout
    assert "agent    running, PID 44028, started once" in done.stdout
    assert "recover  not running, started 12 times, last exit 0" in done.stdout
    answer = json.loads(mac.vestal("install", "--show", "--json").stdout)
    assert answer["healthy"] is True
    assert [job["state"]["pid"] for job in answer["jobs"]] == [44028, None]


@pytest.mark.timeout(300)  # `vestal doctor` imports all packages in a process of its own
def test_install_show_and_doctor_report_a_deleted_python_interpreter(mac):
    mac.vestal("install")
    path = agents(mac) / f"{AGENT}.plist"
    keys = plistlib.loads(path.read_bytes())
    keys["ProgramArguments"][0] = "/nowhere/python"
    path.write_bytes(plistlib.dumps(keys))
    shown = mac.vestal("install", "--show")
    assert shown.returncode == 1
    assert "its Python /nowhere/python is gone: `vestal install` writes it again" in shown.stdout
    assert "its Python /nowhere/python is gone" in mac.vestal_process("doctor").stdout
    assert mac.vestal("install").returncode == 0
    assert mac.vestal("install", "--show").returncode == 0


def test_install_command_with_option_show_reports_that_launchd_has_not_loaded_an_installed_job(mac):
    mac.vestal("install")
    (mac.fake_state / "loaded").write_text(RECOVER)
    done = mac.vestal("install", "--show")
    assert done.returncode == 1
    assert "agent    not loaded" in done.stdout and "launchd has not loaded it" in done.stdout


def test_install_dry_run_on_a_mac_changes_nothing(mac):
    done = mac.vestal("install", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert mac.calls() == []
    assert f"would run launchctl bootstrap {GUI} {agents(mac)}/{AGENT}.plist" in done.stdout
    assert names(mac.user) == set(), "not even a folder is made"


def test_install_and_uninstall_dry_runs_with_loaded_launchd_jobs_change_nothing(mac):
    mac.vestal("install")
    mac.calls()
    done = mac.vestal("install", "--dry-run", VESTAL_MLX_PORT="12345")
    assert f"would run launchctl bootout {GUI}/{AGENT}" in done.stdout
    assert f"would remove {agents(mac)}/{AGENT}.plist" in mac.vestal("uninstall", "--dry-run").stdout
    assert mac.calls() == [] and mac.loaded() == {AGENT, RECOVER}


def test_install_with_option_server_only_replaces_the_agent_jobs_until_an_install_without_that_option(mac):
    mac.vestal("install")
    mac.calls()
    done = mac.vestal("install", "--server-only")
    assert done.returncode == 0, done.stderr
    assert names(agents(mac)) == {f"{SERVER}.plist"}
    assert mac.loaded() == {SERVER}
    assert plistlib.loads((agents(mac) / f"{SERVER}.plist").read_bytes())["ProgramArguments"][-1] == "server"
    mac.vestal("install")
    assert mac.loaded() == {AGENT, RECOVER}
    assert names(agents(mac)) == {f"{AGENT}.plist", f"{RECOVER}.plist"}


def test_install_with_sudo_is_refused(mac):
    done = mac.vestal("install", SUDO_USER="ada")
    assert done.returncode == 69
    assert "run it as ada" in done.stderr
    assert mac.calls() == []


def test_install_daemon_dry_run_on_a_mac_prints_the_system_domain_and_a_user_name(mac):
    done = mac.vestal("install", "--daemon", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert f"launchctl bootstrap system /Library/LaunchDaemons/{AGENT}.plist" in done.stdout
    assert "<key>UserName</key>" in done.stdout and "<key>HOME</key>" in done.stdout


def test_install_on_a_mac_replaces_an_agent_started_by_hand_and_leaves_its_gateway_running(agent, mac):
    gateway = agent.start().gateway()
    done = mac.vestal_process(
        "install", **{name: value for name, value in agent.env.items() if name.startswith("VESTAL_")}
    )
    assert done.returncode == 0, done.stderr
    assert f"PID {agent.process.pid} is replaced" in done.stdout
    assert agent.process.wait(60) == -signal.SIGKILL
    assert psutil.Process(gateway).status() != psutil.STATUS_ZOMBIE
    assert {label.rpartition(".")[2] for label in mac.loaded()} == {"agent", "recover"}


def test_agent_run_by_launchd_exits_with_0_if_another_agent_runs(agent):
    """launchd would restart a failed job every 10 s."""
    agent.start()
    command = [sys.executable, "-m", "host_agent.cli.main", "agent"]
    for extra, code in ((["--managed"], 0), ([], 75)):
        done = subprocess.run(
            [*command, *extra], env=agent.env, cwd=REPO, capture_output=True, text=True, timeout=100
        )
        assert done.returncode == code, done.stderr
        assert "An agent already serves" in done.stdout + done.stderr
