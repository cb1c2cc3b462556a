"""`vestal install`: what the jobs' files hold (settings, absolute paths, no secret), and root's commands."""

from __future__ import annotations

import re
from argparse import Namespace
from pathlib import Path

import pytest

from host_agent.cli.install import launch_daemon
from host_agent.cli.install.install import is_private
from host_agent.cli.install.job_settings import (
    gather,
    is_secret,
    search_path,
    split_environment,
    with_absolute_path,
)
from host_agent.service_manager import launchd
from host_agent.service_manager.jobs import AGENT_JOBS, ALL_JOBS, JobSettings
from host_agent.service_manager.launchd import Launchd
from host_agent.service_manager.systemd import Systemd
from vestal.config import ensure_token, environment, load, validation_messages
from vestal.platform.commands import Commands

SECRETS = {
    "VESTAL_TOKEN": "secret-1",
    "VESTAL_MLX__API_KEY": "secret-2",
    "VESTAL_DATABASE_URL": "postgresql://u:secret-3@db/x",
    "VESTAL_ORCHESTRATOR__DATABASE_URL": "secret-4",
    "HF_TOKEN": "secret-5",
    "OPENAI_API_KEY": "secret-6",
    "AWS_SECRET_ACCESS_KEY": "secret-7",
    "OLLAMA_BASE_URL": "http://ada:secret-8@box:11434",
    "PASSWORD": "secret-9",
    "VESTAL_NOTIFICATIONS__WEBHOOK_URL": "https://hooks.example/secret-10",
    "VESTAL_NOTIFICATIONS__APPRISE": "discord://4242/secret-11,tgram://123:secret-12/chat",
    "VESTAL_ORCHESTRATOR__MORE_MLX_URLS": "http://a:1,http://ada:secret-13@b:2",
    "VESTAL_ORCHESTRATOR__MORE_OLLAMA_URLS": "[http://ada:secret-14@b:2]",
    "HTTPS_PROXY": "http://ada:secret-15@proxy:3128",
    "OLLAMA_API_KEY": "secret-16",
    "http_proxy": "ada:secret-17@proxy:3128",
}
PLAIN = {
    "VESTAL_MLX_PORT": "1234",
    "VESTAL_MLX__KEEP_ALIVE": "60",
    "MAC_LLM_URL": "http://127.0.0.1:11435",
    "ORCHESTRATOR_CYCLE_INTERVAL": "60",
    "DOCKER_CONTEXT": "colima",
    "MLX_PRELOAD_MODELS": "a,b",
    "VESTAL_ORCHESTRATOR__CONTEXT_TOKENS": "4096",
    "RECOVERY_WEBHOOK_URL": "http://127.0.0.1:9099/recover",
    "HTTP_PROXY": "proxy:3128",
    "NO_PROXY": "localhost,@corp:8080",
    "REQUESTS_CA_BUNDLE": "/etc/ca.pem",
    "HF_HUB_OFFLINE": "1",
    "HF_TOKEN_PATH": "/home/ada/hf-token",
    "OLLAMA_NUM_PARALLEL": "2",
    "DOCKER_TLS_VERIFY": "1",
    "DOCKER_CERT_PATH": "/certificates",
}


def test_split_environment_returns_settings_and_only_the_names_of_secrets():
    settings, secrets = split_environment({**PLAIN, **SECRETS, "EDITOR": "ed", "VESTAL_HOME": "relative"})
    assert settings == PLAIN
    assert secrets == [
        "HF_TOKEN",
        "HTTPS_PROXY",
        "OLLAMA_API_KEY",
        "OLLAMA_BASE_URL",
        "VESTAL_DATABASE_URL",
        "VESTAL_MLX__API_KEY",
        "VESTAL_NOTIFICATIONS__APPRISE",
        "VESTAL_NOTIFICATIONS__WEBHOOK_URL",
        "VESTAL_ORCHESTRATOR__DATABASE_URL",
        "VESTAL_ORCHESTRATOR__MORE_MLX_URLS",
        "VESTAL_ORCHESTRATOR__MORE_OLLAMA_URLS",
        "VESTAL_TOKEN",
        "http_proxy",
    ]


def test_is_secret_is_true_for_every_setting_that_is_declared_as_secret():
    declared = [
        f"VESTAL_{section}__{key}".upper()
        for section, key in environment.all_keys()
        if validation_messages.is_secret((section, key))
    ]
    assert len(declared) > 4
    assert [name for name in declared if not is_secret(name, "x")] == []


def test_relative_paths_in_the_shell_are_absolute_in_the_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """`VESTAL_MODELS_DIR=models` once named a folder of the checkout for the installed agent."""
    monkeypatch.chdir(tmp_path)
    env = {
        "HOME": str(tmp_path / "ada"),
        "VESTAL_MODELS_DIR": "models",
        "VESTAL_MLX__MODELS_FOLDER": "~/mlx",
        "VESTAL_MODELS__OWN__SOURCE": "path:own.gguf",
        "HF_HOME": "hub",
        "OLLAMA_MODELS": "~/ollama",
        "VESTAL_MLX__PRELOAD": "models",
    }
    config = load(env, tmp_path)
    assert {name: with_absolute_path(name, value, config) for name, value in env.items()} == {
        "HOME": str(tmp_path / "ada"),
        "VESTAL_MODELS_DIR": str(tmp_path / "models"),
        "VESTAL_MLX__MODELS_FOLDER": str(tmp_path / "ada" / "mlx"),
        "VESTAL_MODELS__OWN__SOURCE": f"path:{tmp_path}/own.gguf",
        "HF_HOME": str(tmp_path / "hub"),
        "OLLAMA_MODELS": "~/ollama",
        "VESTAL_MLX__PRELOAD": "models",
    }


def test_split_environment_keeps_every_variable_that_the_compose_file_takes_and_that_is_not_secret(
    repo: Path,
):
    """`NIGHTLY_HOUR=5 TZ=Asia/Tokyo vestal install` once installed jobs that had neither."""
    names = set(re.findall(r"\$\{([A-Z_]+)", (repo / "docker-compose.yml").read_text())) - {"VESTAL_HOME"}
    settings, secrets = split_environment(dict.fromkeys(names, "1"))
    assert {"NIGHTLY_HOUR", "TZ"} <= settings.keys()
    assert names == settings.keys() | set(secrets)


@pytest.mark.parametrize(("text", "seconds"), [("0.5", 1), ("299.5", 300), ("315360000", 315_360_000)])
def test_interval_between_recovery_passes_of_a_job_is_a_whole_number_of_seconds_and_not_zero(
    tmp_path: Path, text: str, seconds: int
):
    """`recovery_interval_s: 0.5` once made launchd's StartInterval 0."""
    config = load({"HOME": str(tmp_path), "VESTAL_AGENT__RECOVERY_INTERVAL_S": text}, tmp_path)
    assert gather(config, daemon=False)[0].recover_each_s == seconds


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_is_secret_is_true_for_secret_variable_names_and_urls_with_a_password(name: str):
    assert is_secret(name, SECRETS[name])


def test_rendered_job_files_contain_neither_secrets_of_the_environment_nor_the_token(tmp_path: Path):
    config = load({"HOME": str(tmp_path)}, tmp_path)
    token = ensure_token(config.home)
    environment, _ = split_environment({**PLAIN, **SECRETS})
    settings = JobSettings(environment, tmp_path, "/p/python", 120, 300)
    managers = (
        Launchd(config.home, Commands(), launchd.agents(tmp_path, 501)),
        Launchd(config.home, Commands(), launchd.daemons("ada", 501)),
        Systemd(config.home, Commands(), tmp_path),
    )
    for manager in managers:
        for file in manager.render(ALL_JOBS, settings):
            assert "1234" in file.text or file.path.suffix == ".timer"
            assert "secret-" not in file.text and token not in file.text


def test_search_path_of_an_installed_job_begins_with_the_absolute_folders_of_the_shells_path():
    found = search_path({"PATH": "/mine:.::bin:/usr/bin"}, ("/opt/homebrew/bin", "/mine"))
    assert found.split(":") == ["/mine", "/usr/bin", "/opt/homebrew/bin", "/bin", "/usr/sbin", "/sbin"]


def test_is_private_is_true_only_for_folders_that_macos_protects():
    assert is_private(Path("/Users/ada/Documents/vestal"), Path("/Users/ada"))
    assert not is_private(Path("/Users/ada/vestal"), Path("/Users/ada"))


def test_launch_daemon_sudo_commands_quote_paths_and_are_listed_in_the_order_to_run_them():
    pair = (Path("/Users/a b/x.plist"), Path("/Library/LaunchDaemons/dev.vestal.agent.plist"))
    assert launch_daemon.install_commands([pair]) == [
        "sudo install -o root -g wheel -m 644 '/Users/a b/x.plist' "
        "/Library/LaunchDaemons/dev.vestal.agent.plist",
        "sudo launchctl enable system/dev.vestal.agent",
        "sudo launchctl bootstrap system /Library/LaunchDaemons/dev.vestal.agent.plist",
    ]
    assert launch_daemon.uninstall_commands([pair[1]]) == [
        "sudo launchctl bootout system/dev.vestal.agent",
        "sudo rm /Library/LaunchDaemons/dev.vestal.agent.plist",
    ]


def test_launch_daemon_without_root_writes_its_files_and_prints_the_sudo_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    config = load({"HOME": str(tmp_path)}, tmp_path)
    own = Launchd(config.home, Commands(), launchd.agents(tmp_path, 501))
    system = Launchd(config.home, Commands(), launchd.daemons("ada", 501))
    assert system.needs_root and not own.needs_root
    files = system.render(AGENT_JOBS, JobSettings({}, tmp_path, "/p/python", 120, 300))
    assert launch_daemon.prepare(Namespace(dry_run=False), config, own, files) == 77
    prepared = config.home.root / "launchd" / "dev.vestal.agent.plist"
    assert prepared.stat().st_mode & 0o777 == 0o600
    output = capsys.readouterr().out
    assert f"sudo install -o root -g wheel -m 644 {prepared} /Library/LaunchDaemons/{prepared.name}" in output
    assert output.count("sudo launchctl bootstrap system ") == len(AGENT_JOBS)
