"""The property lists that `vestal install` writes on a Mac, checked against launchd's manual."""

from __future__ import annotations

import plistlib
from pathlib import Path
from typing import Any

import pytest

from host_agent.cli.install.job_settings import stop_within_s
from host_agent.service_manager import launchd
from host_agent.service_manager.jobs import ALL_JOBS, KEPT_ALIVE, JobSettings
from host_agent.service_manager.launchd import Launchd
from host_agent.service_manager.launchd_plist import fill
from vestal.config import load
from vestal.platform.commands import Commands
from vestal.web import descriptors

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
def settings(config, tmp_path: Path) -> JobSettings:
    return JobSettings(
        {"PATH": "/usr/bin", "A": '<&"\n'}, tmp_path / "a & b", "/p/python", stop_within_s(config), 300
    )


def plists(config, settings: JobSettings, domain: launchd.Domain) -> dict[str, dict[str, Any]]:
    manager = Launchd(config.home, Commands(), domain)
    return {file.job: plistlib.loads(file.text.encode()) for file in manager.render(ALL_JOBS, settings)}


@pytest.fixture
def agents(config, settings: JobSettings, tmp_path: Path):
    return plists(config, settings, launchd.agents(tmp_path, 501))


@pytest.fixture
def daemons(config, settings: JobSettings):
    return plists(config, settings, launchd.daemons("ada", 501))


def test_plists_have_only_keys_of_launchds_manual_with_values_of_their_types(agents, daemons):
    for keys in (*agents.values(), *daemons.values()):
        for key, value in keys.items():
            assert isinstance(value, MANUAL[key]), key
            # In Python a bool is an int; launchd distinguishes them.
            assert isinstance(value, bool) == (bool in MANUAL[key] and not isinstance(value, dict)), key
        assert set(keys.get("KeepAlive", {})) <= KEEP_ALIVE
        assert keys["ProcessType"] in PROCESS_TYPES
        assert all(isinstance(v, str) for v in keys["EnvironmentVariables"].values())
        assert all(isinstance(v, str) for v in keys["ProgramArguments"])


def test_plist_of_a_keep_alive_job_makes_launchd_restart_it_after_a_failure_and_wait_for_its_shutdown(
    agents, config
):
    for name in KEPT_ALIVE:
        assert agents[name]["KeepAlive"] == {"SuccessfulExit": False}
        assert agents[name]["RunAtLoad"] is True
        assert agents[name]["ProcessType"] == "Interactive"
        assert agents[name]["ExitTimeOut"] > config.mlx.drain_s + 15 + 4 * config.supervision.stop_s
    assert agents["agent"]["ProgramArguments"][-2:] == ["agent", "--managed"]
    assert agents["server"]["ProgramArguments"][-1] == "server"


def test_plists_of_keep_alive_jobs_raise_launchds_limit_of_256_open_files(agents):
    for name in KEPT_ALIVE:
        soft, hard = (agents[name][f"{kind}ResourceLimits"]["NumberOfFiles"] for kind in ("Soft", "Hard"))
        assert descriptors.WANTED <= soft <= hard


def test_stop_timeout_of_an_installed_job_grows_with_the_configured_drain_time(tmp_path: Path):
    env = {"HOME": str(tmp_path), "VESTAL_MLX__DRAIN_S": "600"}
    assert stop_within_s(load(env, tmp_path)) > 600 + 15


def test_plist_of_the_recovery_job_runs_it_at_load_and_every_300_s_and_keeps_its_children_alive(agents):
    recover = agents["recover"]
    assert recover["RunAtLoad"] is True and recover["StartInterval"] == 300
    assert recover["AbandonProcessGroup"] is True
    assert "KeepAlive" not in recover
    assert recover["ProgramArguments"][-2:] == ["recover", "--once"]


def test_plist_label_equals_its_file_name_and_differs_between_homes(agents, config, tmp_path: Path):
    manager = Launchd(config.home, Commands(), launchd.agents(tmp_path, 501))
    for name, keys in agents.items():
        assert manager.path(name).name == f"{keys['Label']}.plist"
    other = load({"HOME": str(tmp_path)}, tmp_path)
    assert Launchd(other.home, Commands(), launchd.agents(tmp_path, 501)).path("agent").name == (
        "dev.vestal.agent.plist"
    )
    assert len({keys["Label"] for keys in agents.values()}) == len(ALL_JOBS)


def test_log_folder_of_every_launchd_job_exists_once_the_vestal_home_is_prepared(agents, config):
    config.home.prepare()
    for keys in agents.values():
        assert Path(keys["StandardOutPath"]).parent.is_dir()
        assert keys["StandardErrorPath"] == keys["StandardOutPath"]


def test_plist_values_with_markup_and_newlines_are_escaped(agents, settings: JobSettings):
    assert agents["agent"]["EnvironmentVariables"]["A"] == '<&"\n'
    assert agents["agent"]["WorkingDirectory"] == str(settings.checkout)


def test_launch_daemons_have_a_user_name_and_launch_agents_have_none(agents, daemons):
    assert {keys["UserName"] for keys in daemons.values()} == {"ada"}
    assert not any("UserName" in keys for keys in agents.values())


def test_plist_template_with_an_unknown_placeholder_raises_key_error():
    template = plistlib.dumps({"Label": "@LABLE@"}).decode()
    with pytest.raises(KeyError):
        fill(template, {"LABEL": "x"}, {})


def test_rendered_plists_have_no_placeholders(config, settings: JobSettings, tmp_path: Path):
    for file in Launchd(config.home, Commands(), launchd.agents(tmp_path, 501)).render(ALL_JOBS, settings):
        assert "@" not in file.text


def test_python_and_checkout_of_an_installed_job_are_read_back_from_its_plist(
    config, settings: JobSettings, tmp_path: Path
):
    manager = Launchd(config.home, Commands(), launchd.agents(tmp_path, 501))
    (agent, *_) = manager.render(ALL_JOBS, settings)
    agent.path.parent.mkdir(parents=True)
    agent.path.write_text(agent.text)
    assert manager.installed_program("agent").python == Path("/p/python")
    assert manager.installed_program("agent").checkout == settings.checkout
