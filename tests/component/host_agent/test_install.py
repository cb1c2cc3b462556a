"""`vestal install`, `--show` and `uninstall` from outside, with stand-ins for launchctl and systemctl."""

from __future__ import annotations

import json
import os
import plistlib
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

REPO = Path(__file__).resolve().parents[3]
STAND_IN = REPO / "tests" / "children" / "service_manager.py"
NO_SESSION = "125 Bootstrap failed: 125: Domain does not support specified action"
INPUT_OUTPUT = "5 Bootstrap failed: 5: Input/output error"
FOREIGN = ("VESTAL_", "MLX_", "OLLAMA_", "XDG_", "SUDO_")


class Machine:
    """A user's folder, a home in it, and the stand-ins first in PATH."""

    def __init__(self, folder: Path, manager: str, env: dict[str, str]) -> None:
        self.user, self.stand_in = folder / "ada", folder / "stand-in"
        programs = folder / "bin"
        for made in (self.user, self.stand_in, programs):
            made.mkdir()
        for name in ("launchctl", "systemctl", "loginctl"):
            (programs / name).symlink_to(STAND_IN)
        clean = {name: value for name, value in env.items() if not name.startswith(FOREIGN)}
        self.env = clean | {
            "HOME": str(self.user),
            "PATH": f"{programs}:{Path(sys.executable).parent}:{env['PATH']}",
            "STAND_IN": str(self.stand_in),
            "VESTAL_SERVICE_MANAGER": manager,
            "VESTAL_OLLAMA__MANAGE": "off",
        }

    def vestal(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "host_agent.cli.main", *arguments]
        return subprocess.run(
            command, env=self.env | env, cwd=REPO, capture_output=True, text=True, timeout=60
        )

    def calls(self) -> list[str]:
        """What was asked of the service manager since the last look, without the looking itself."""
        path = self.stand_in / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        looking = ("launchctl print", "systemctl --user show", "loginctl show-user")
        return [line for line in lines if not line.startswith(looking)]

    def refuse(self, verb: str, *replies: str) -> None:
        (self.stand_in / f"refuse-{verb}").write_text("\n".join(replies))

    def loaded(self) -> set[str]:
        path = self.stand_in / "loaded"
        return set(path.read_text().split()) if path.exists() else set()


@pytest.fixture
def mac(tmp_path: Path, free_port: Callable[[], int]) -> Machine:
    machine = Machine(tmp_path, "launchd", dict(os.environ))
    machine.env["VESTAL_AGENT_PORT"] = str(free_port())
    return machine


@pytest.fixture
def linux(tmp_path: Path, free_port: Callable[[], int]) -> Machine:
    machine = Machine(tmp_path, "systemd", dict(os.environ))
    machine.env["VESTAL_AGENT_PORT"] = str(free_port())
    return machine


def agents(mac: Machine) -> Path:
    return mac.user / "Library" / "LaunchAgents"


def units(linux: Machine) -> Path:
    return linux.user / ".config" / "systemd" / "user"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


GUI = f"gui/{os.getuid()}"
AGENT, RECOVER, SERVER = "dev.vestal.agent", "dev.vestal.recover", "dev.vestal.server"


def loading(mac: Machine, label: str, kick: bool) -> list[str]:
    lines = [
        f"launchctl enable {GUI}/{label}",
        f"launchctl bootstrap {GUI} {agents(mac) / f'{label}.plist'}",
    ]
    return [*lines, f"launchctl kickstart {GUI}/{label}"] if kick else lines


def test_first_install_on_a_mac_writes_private_files_and_loads_them(mac):
    done = mac.vestal("install", VESTAL_TOKEN="secret-1", VESTAL_DATABASE_URL="postgresql://u:secret-2@h/d")
    assert done.returncode == 0, done.stderr
    assert mac.calls() == [*loading(mac, AGENT, kick=True), *loading(mac, RECOVER, kick=False)]
    for label in (AGENT, RECOVER):
        path = agents(mac) / f"{label}.plist"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        text = path.read_text()
        assert "secret-" not in text and (mac.user / ".vestal" / "token").read_text().strip() not in text
        keys = plistlib.loads(text.encode())
        assert Path(keys["StandardOutPath"]).parent.is_dir(), "launchd makes no folder for a log"
        assert keys["ProgramArguments"][0] == sys.executable
        assert keys["EnvironmentVariables"]["PATH"].split(":")[0] == str(mac.stand_in.parent / "bin")
        assert keys["EnvironmentVariables"]["VESTAL_HOME"] == str(mac.user / ".vestal")
    assert "VESTAL_DATABASE_URL, VESTAL_TOKEN" in done.stdout, "what is left out is named"


def test_second_install_changes_nothing_that_runs(mac):
    mac.vestal("install")
    mac.calls()
    done = mac.vestal("install")
    assert done.returncode == 0, done.stderr
    assert mac.calls() == [f"launchctl kickstart {GUI}/{AGENT}"], "which starts nothing that runs"


def test_install_with_changed_settings_loads_anew(mac):
    mac.vestal("install")
    mac.calls()
    done = mac.vestal("install", VESTAL_MLX_PORT="12345")
    assert done.returncode == 0, done.stderr
    assert mac.calls() == [
        f"launchctl bootout {GUI}/{AGENT}",
        *loading(mac, AGENT, kick=True),
        f"launchctl bootout {GUI}/{RECOVER}",
        *loading(mac, RECOVER, kick=False),
    ]


def test_bootstrap_that_fails_once_with_error_5_is_tried_once_more(mac):
    mac.refuse("bootstrap", INPUT_OUTPUT)
    done = mac.vestal("install")
    assert done.returncode == 0, done.stderr
    assert sum("bootstrap" in call for call in mac.calls()) == 3, "two jobs, one of them twice"
    assert mac.loaded() == {AGENT, RECOVER}


def test_bootstrap_that_fails_twice_with_error_5_is_one_sentence(mac):
    mac.refuse("bootstrap", INPUT_OUTPUT, INPUT_OUTPUT)
    done = mac.vestal("install")
    assert done.returncode == 69
    (line,) = done.stderr.splitlines()
    assert "failed twice: Bootstrap failed: 5: Input/output error" in line and "plutil -lint" in line


def test_without_a_login_at_the_screen_the_daemon_is_offered(mac):
    mac.refuse("bootstrap", NO_SESSION)
    done = mac.vestal("install")
    assert done.returncode == 69
    (line,) = done.stderr.splitlines()
    assert f"no domain {GUI}" in line and "vestal install --daemon" in line
    assert sum("bootstrap" in call for call in mac.calls()) == 1, "what cannot go is not repeated"


def test_uninstall_stops_and_removes_all(mac):
    mac.vestal("install")
    mac.calls()
    done = mac.vestal("uninstall")
    assert done.returncode == 0, done.stdout
    assert mac.calls() == [f"launchctl bootout {GUI}/{RECOVER}", f"launchctl bootout {GUI}/{AGENT}"]
    assert mac.loaded() == set() and names(agents(mac)) == set()


def test_uninstall_of_what_is_not_loaded_is_fine(mac):
    mac.vestal("install")
    (mac.stand_in / "loaded").unlink()
    done = mac.vestal("uninstall")
    assert done.returncode == 0, done.stdout
    assert names(agents(mac)) == set()
    again = mac.vestal("uninstall")
    assert (again.returncode, again.stdout) == (0, "Nothing is installed.\n")


def test_uninstall_that_may_not_stop_a_job_keeps_its_file(mac):
    mac.vestal("install")
    mac.refuse("bootout", "1 Boot-out failed: 1: Operation not permitted")
    done = mac.vestal("uninstall")
    assert done.returncode == 1
    assert "recover is not removed" in done.stdout
    assert names(agents(mac)) == {f"{RECOVER}.plist"}


def test_show_tells_state_pid_and_starts(mac):
    assert mac.vestal("install", "--show").returncode == 1, "nothing is installed"
    mac.vestal("install")
    done = mac.vestal("install", "--show")
    assert done.returncode == 0, done.stdout
    assert "agent    running, PID 44028, started once" in done.stdout
    assert "recover  not running, started 12 times, last exit 0" in done.stdout
    told = json.loads(mac.vestal("install", "--show", "--json").stdout)
    assert told["healthy"] is True
    assert [job["state"]["pid"] for job in told["jobs"]] == [44028, None]


def test_show_and_doctor_name_a_python_that_is_gone(mac):
    mac.vestal("install")
    path = agents(mac) / f"{AGENT}.plist"
    keys = plistlib.loads(path.read_bytes())
    keys["ProgramArguments"][0] = "/nowhere/python"
    path.write_bytes(plistlib.dumps(keys))
    shown = mac.vestal("install", "--show")
    assert shown.returncode == 1
    assert "its Python /nowhere/python is gone: `vestal install` writes it anew" in shown.stdout
    assert "its Python /nowhere/python is gone" in mac.vestal("doctor").stdout
    assert mac.vestal("install").returncode == 0
    assert mac.vestal("install", "--show").returncode == 0


def test_show_names_what_launchd_has_not_loaded(mac):
    mac.vestal("install")
    (mac.stand_in / "loaded").write_text(RECOVER)
    done = mac.vestal("install", "--show")
    assert done.returncode == 1
    assert "agent    not loaded" in done.stdout and "launchd has not loaded it" in done.stdout


def test_dry_run_changes_nothing(mac):
    done = mac.vestal("install", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert mac.calls() == []
    assert f"would run launchctl bootstrap {GUI} {agents(mac)}/{AGENT}.plist" in done.stdout
    assert names(mac.user) == set(), "not even a folder"


def test_dry_run_over_what_is_loaded_ends_at_once(mac):
    mac.vestal("install")
    mac.calls()
    done = mac.vestal("install", "--dry-run", VESTAL_MLX_PORT="12345")
    assert f"would run launchctl bootout {GUI}/{AGENT}" in done.stdout
    assert f"would remove {agents(mac)}/{AGENT}.plist" in mac.vestal("uninstall", "--dry-run").stdout
    assert mac.calls() == [] and mac.loaded() == {AGENT, RECOVER}


def test_server_alone_takes_the_agents_place_and_back(mac):
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


def test_daemon_dry_run_names_the_system_domain_and_its_user(mac):
    done = mac.vestal("install", "--daemon", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert f"launchctl bootstrap system /Library/LaunchDaemons/{AGENT}.plist" in done.stdout
    assert "<key>UserName</key>" in done.stdout and "<key>HOME</key>" in done.stdout


def test_agent_started_by_hand_makes_room_and_its_gateway_goes_on(agent, mac):
    gateway = agent.start().gateway()
    done = mac.vestal(
        "install", **{name: value for name, value in agent.env.items() if name.startswith("VESTAL_")}
    )
    assert done.returncode == 0, done.stderr
    assert f"PID {agent.process.pid} makes room" in done.stdout
    assert agent.process.wait(10) == -signal.SIGKILL
    assert psutil.Process(gateway).status() != psutil.STATUS_ZOMBIE
    assert {label.rpartition(".")[2] for label in mac.loaded()} == {"agent", "recover"}


def test_agent_under_a_manager_ends_well_where_another_runs(agent):
    """Else launchd would start it again every 10 s, without an end."""
    agent.start()
    command = [sys.executable, "-m", "host_agent.cli.main", "agent"]
    for extra, code in ((["--managed"], 0), ([], 75)):
        done = subprocess.run(
            [*command, *extra], env=agent.env, cwd=REPO, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == code, done.stderr
        assert "An agent already serves" in done.stdout + done.stderr


def test_first_install_on_linux_enables_starts_and_lingers(linux):
    done = linux.vestal("install", VESTAL_TOKEN="secret-1")
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


def test_second_install_on_linux_restarts_only_what_has_changed(linux):
    linux.vestal("install")
    linux.calls()
    linux.vestal("install")
    assert not any("restart" in call or "daemon-reload" in call for call in linux.calls())
    linux.vestal("install", VESTAL_MLX_PORT="12345")
    calls = linux.calls()
    assert calls[0] == "systemctl --user daemon-reload"
    assert "systemctl --user restart vestal-agent.service" in calls


def test_lingering_that_is_refused_is_said(linux):
    linux.refuse("enable-linger", "1 Could not enable linger: Access denied")
    done = linux.vestal("install")
    assert done.returncode == 0
    assert "sudo loginctl enable-linger $USER" in done.stdout
    assert "end at your logout" in linux.vestal("install", "--show").stdout


def test_machine_without_a_user_manager_gets_one_sentence_and_no_file(linux):
    (linux.stand_in / "no-manager").touch()
    done = linux.vestal("install")
    assert done.returncode == 69
    (line,) = done.stderr.splitlines()
    assert "No systemd of this user's answers (Failed to connect to bus: No medium found)" in line
    assert names(linux.user) == set()
    shown = linux.vestal("install", "--dry-run")
    assert shown.returncode == 0 and "would not be installed here: No systemd" in shown.stdout
    assert "would write" in shown.stdout and names(linux.user) == set()


def test_uninstall_on_linux_disables_and_removes(linux):
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


def test_show_on_linux_tells_pid_and_timer(linux):
    linux.vestal("install")
    done = linux.vestal("install", "--show")
    assert done.returncode == 0, done.stdout
    assert "agent    active (running), PID 4242, started 3 times" in done.stdout
    assert "recover  active (waiting)" in done.stdout


def test_daemon_on_linux_is_refused_with_what_does_the_same(linux):
    done = linux.vestal("install", "--daemon")
    assert done.returncode == 69 and "lingering" in done.stderr
