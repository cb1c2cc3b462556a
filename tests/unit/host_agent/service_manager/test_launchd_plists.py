"""The property lists that `vestal install` writes on a Mac, against launchd's manual."""

from __future__ import annotations

import plistlib
from pathlib import Path
from typing import Any

import pytest

from host_agent.cli.install.job_settings import stop_within_s
from host_agent.service_manager import launchd
from host_agent.service_manager.launchd import Launchd
from host_agent.service_manager.launchd_plist import fill
from host_agent.service_manager.unit import ALL, KEPT_ALIVE, JobSettings
from vestal.config import load
from vestal.platform.commands import Commands

# launchd.plist(5) of macOS 15: every key, and the types of its value.
MANUAL: dict[str, tuple[type, ...]] = {
    "AbandonProcessGroup": (bool,),
    "AssociatedBundleIdentifiers": (str, list),
    "BundleProgram": (str,),
    "Debug": (bool,),
    "Disabled": (bool,),
    "EnableGlobbing": (bool,),
    "EnablePressuredExit": (bool,),
    "EnableTransactions": (bool,),
    "EnvironmentVariables": (dict,),
    "ExitTimeOut": (int,),
    "GroupName": (str,),
    "HardResourceLimits": (dict,),
    "InitGroups": (bool,),
    "KeepAlive": (bool, dict),
    "Label": (str,),
    "LaunchEvents": (dict,),
    "LaunchOnlyOnce": (bool,),
    "LegacyTimers": (bool,),
    "LimitLoadFromHardware": (dict,),
    "LimitLoadFromHosts": (list,),
    "LimitLoadToHardware": (dict,),
    "LimitLoadToHosts": (list,),
    "LimitLoadToSessionType": (str, list),
    "LowPriorityBackgroundIO": (bool,),
    "LowPriorityIO": (bool,),
    "MachServices": (dict,),
    "MaterializeDatalessFiles": (bool,),
    "Nice": (int,),
    "OnDemand": (bool,),
    "ProcessType": (str,),
    "Program": (str,),
    "ProgramArguments": (list,),
    "QueueDirectories": (list,),
    "RootDirectory": (str,),
    "RunAtLoad": (bool,),
    "SessionCreate": (bool,),
    "Sockets": (dict,),
    "SoftResourceLimits": (dict,),
    "StandardErrorPath": (str,),
    "StandardInPath": (str,),
    "StandardOutPath": (str,),
    "StartCalendarInterval": (dict, list),
    "StartInterval": (int,),
    "StartOnMount": (bool,),
    "ThrottleInterval": (int,),
    "TimeOut": (int,),
    "Umask": (int, str),
    "UserName": (str,),
    "WaitForDebugger": (bool,),
    "WatchPaths": (list,),
    "WorkingDirectory": (str,),
    "inetdCompatibility": (dict,),
}
KEEP_ALIVE = {
    "AfterInitialDemand",
    "Crashed",
    "NetworkState",
    "OtherJobEnabled",
    "PathState",
    "SuccessfulExit",
}
PROCESS_TYPES = {"Adaptive", "Background", "Interactive", "Standard"}


@pytest.fixture
def config(tmp_path: Path):
    return load({"HOME": str(tmp_path), "VESTAL_HOME": str(tmp_path / "v")}, tmp_path)


@pytest.fixture
def told(config, tmp_path: Path) -> JobSettings:
    return JobSettings(
        {"PATH": "/usr/bin", "A": '<&"\n'}, tmp_path / "a & b", "/p/python", stop_within_s(config), 300
    )


def lists(config, told: JobSettings, place: launchd.Place) -> dict[str, dict[str, Any]]:
    manager = Launchd(config.home, Commands(), place)
    return {unit.name: plistlib.loads(unit.text.encode()) for unit in manager.units(ALL, told)}


@pytest.fixture
def agents(config, told: JobSettings, tmp_path: Path):
    return lists(config, told, launchd.agents(tmp_path, 501))


@pytest.fixture
def daemons(config, told: JobSettings):
    return lists(config, told, launchd.daemons("ada", 501))


def test_every_key_is_in_the_manual_with_a_value_of_its_type(agents, daemons):
    for keys in (*agents.values(), *daemons.values()):
        for key, value in keys.items():
            assert isinstance(value, MANUAL[key]), key
            # A bool is an int to Python, and another thing to launchd.
            assert isinstance(value, bool) == (bool in MANUAL[key] and not isinstance(value, dict)), key
        assert set(keys.get("KeepAlive", {})) <= KEEP_ALIVE
        assert keys["ProcessType"] in PROCESS_TYPES
        assert all(isinstance(v, str) for v in keys["EnvironmentVariables"].values())
        assert all(isinstance(v, str) for v in keys["ProgramArguments"])


def test_what_is_kept_alive_comes_back_after_a_failure_and_has_time_to_stop(agents, config):
    for name in KEPT_ALIVE:
        assert agents[name]["KeepAlive"] == {"SuccessfulExit": False}
        assert agents[name]["RunAtLoad"] is True
        assert agents[name]["ProcessType"] == "Interactive"
        assert agents[name]["ExitTimeOut"] > config.mlx.drain_s + 15 + 4 * config.supervision.stop_s
    assert agents["agent"]["ProgramArguments"][-2:] == ["agent", "--managed"]
    assert agents["server"]["ProgramArguments"][-1] == "server"


def test_exit_time_out_follows_a_longer_drain(tmp_path: Path):
    env = {"HOME": str(tmp_path), "VESTAL_MLX__DRAIN_S": "600"}
    assert stop_within_s(load(env, tmp_path)) > 600 + 15


def test_recovery_runs_at_load_and_each_300_s_and_leaves_what_it_started(agents):
    recover = agents["recover"]
    assert recover["RunAtLoad"] is True and recover["StartInterval"] == 300
    assert recover["AbandonProcessGroup"] is True
    assert "KeepAlive" not in recover
    assert recover["ProgramArguments"][-2:] == ["recover", "--once"]


def test_labels_are_the_files_names_and_differ_between_homes(agents, config, tmp_path: Path, told):
    manager = Launchd(config.home, Commands(), launchd.agents(tmp_path, 501))
    for name, keys in agents.items():
        assert manager.path(name).name == f"{keys['Label']}.plist"
    other = load({"HOME": str(tmp_path)}, tmp_path)
    assert Launchd(other.home, Commands(), launchd.agents(tmp_path, 501)).path("agent").name == (
        "dev.vestal.agent.plist"
    )
    assert len({keys["Label"] for keys in agents.values()}) == len(ALL)


def test_logs_are_in_a_folder_that_an_installation_makes(agents, config):
    config.home.prepare()
    for keys in agents.values():
        assert Path(keys["StandardOutPath"]).parent.is_dir()
        assert keys["StandardErrorPath"] == keys["StandardOutPath"]


def test_values_are_escaped_and_not_pasted(agents, told: JobSettings):
    assert agents["agent"]["EnvironmentVariables"]["A"] == '<&"\n'
    assert agents["agent"]["WorkingDirectory"] == str(told.checkout)


def test_daemon_runs_as_its_user_and_an_agent_names_none(agents, daemons):
    assert {keys["UserName"] for keys in daemons.values()} == {"ada"}
    assert not any("UserName" in keys for keys in agents.values())


def test_template_with_an_unknown_placeholder_is_an_error():
    template = plistlib.dumps({"Label": "@LABLE@"}).decode()
    with pytest.raises(KeyError):
        fill(template, {"LABEL": "x"}, {})


def test_no_placeholder_is_left(config, told: JobSettings, tmp_path: Path):
    for unit in Launchd(config.home, Commands(), launchd.agents(tmp_path, 501)).units(ALL, told):
        assert "@" not in unit.text


def test_written_list_tells_its_python_and_checkout(config, told: JobSettings, tmp_path: Path):
    manager = Launchd(config.home, Commands(), launchd.agents(tmp_path, 501))
    (unit, *_) = manager.units(ALL, told)
    unit.path.parent.mkdir(parents=True)
    unit.path.write_text(unit.text)
    assert manager.written("agent").python == Path("/p/python")
    assert manager.written("agent").checkout == told.checkout
