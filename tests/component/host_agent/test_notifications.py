"""Delivery of notices: real programs and a real webhook."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from host_agent.incidents import Incidents
from host_agent.journal import Journal
from host_agent.notifications import apprise_channel
from host_agent.notifications.channels import (
    Channel,
    NotDelivered,
    channels,
    desktop_command,
    not_possible,
    post_to_webhook,
    show_on_desktop,
)
from host_agent.notifications.notices import LASTS_S, Notice
from host_agent.notifications.notifier import Notifier
from vestal.config.settings import NotificationsSection

WITHIN_S = 30.0  # less than LASTS_S, after which the notifier looks again by itself
NOTICE = Notice("mlx_engine", "breaker_opened", "mlx_engine keeps failing", 'It said "; rm -rf" $(x)', 7.0)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as made:
        yield made


class Webhook:
    """Answers with `status`, and keeps what it received."""

    def __init__(self) -> None:
        self.status, self.url = 200, ""
        self.received: list[dict] = []
        self.arrived = asyncio.Event()

    async def answer(self, request: web.Request) -> web.Response:
        self.received.append(await request.json())
        self.arrived.set()
        return web.Response(status=self.status)


@pytest.fixture
async def webhook(free_port) -> AsyncIterator[Webhook]:
    made, port = Webhook(), free_port()
    app = web.Application()
    app.router.add_post("/secret-path", made.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    made.url = f"http://127.0.0.1:{port}/secret-path"
    yield made
    await runner.cleanup()


def program(folder: Path, text: str) -> Path:
    file = folder / "notify-send"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o700)
    return file


async def test_desktop_notification_passes_title_and_text_unchanged_to_the_program(tmp_path: Path):
    file = program(tmp_path, f'printf "%s\\n" "$@" > {tmp_path}/said')
    await show_on_desktop((str(file), "--"), NOTICE)
    said = (tmp_path / "said").read_text().splitlines()
    assert said == ["--", "Vestal: mlx_engine keeps failing", NOTICE.text]


async def test_desktop_notification_raises_with_the_reason_if_the_program_fails_or_is_missing(tmp_path: Path):
    file = program(tmp_path, "echo 'Cannot autolaunch D-Bus without X11 $DISPLAY' >&2; exit 1")
    with pytest.raises(NotDelivered, match="Cannot autolaunch D-Bus"):
        await show_on_desktop((str(file),), NOTICE)
    with pytest.raises(NotDelivered, match="not-there"):
        await show_on_desktop((str(tmp_path / "not-there"),), NOTICE)


def test_desktop_notification_program_is_found_in_path(tmp_path: Path, monkeypatch):
    file = program(tmp_path, "")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert desktop_command() == (str(file), "--app-name=Vestal", "--")


async def test_webhook_notification_is_posted_as_json(session, webhook):
    await post_to_webhook(session, webhook.url, NOTICE)
    assert webhook.received == [json.loads(json.dumps(NOTICE.as_json()))]


async def test_webhook_notification_that_fails_raises_an_error_without_the_secret_url(session, webhook):
    webhook.status = 403
    with pytest.raises(NotDelivered, match="answered 403") as refused:
        await post_to_webhook(session, webhook.url, NOTICE)
    assert "secret-path" not in str(refused.value)
    with pytest.raises(NotDelivered, match="did not answer") as silent:
        await post_to_webhook(session, "http://127.0.0.1:1/secret-path", NOTICE)
    assert "secret-path" not in str(silent.value)


async def test_notifier_whose_first_channel_fails_delivers_to_the_other_and_records_the_failure(
    session, webhook, tmp_path: Path
):
    journal = Journal(tmp_path / "journal.db")

    async def broken(notice: Notice) -> None:
        raise NotDelivered("no desktop")

    settings = NotificationsSection(desktop=False, webhook_url=webhook.url)
    found = {"desktop": broken, **channels(settings, session)}
    task = asyncio.create_task(Notifier(journal, Incidents(journal), found).run())
    await asyncio.sleep(0)  # from now on the notifier follows the incidents
    journal.record("mlx_engine", "child_started", "again")
    journal.record("mlx_engine", "breaker_opened", "killed by SIGABRT", open_s=60)
    async with asyncio.timeout(WITHIN_S):
        with journal.follow() as entries:
            await webhook.arrived.wait()
            while (await entries.get() or {}).get("event") != "notice_delivered":
                pass
    (received,) = webhook.received
    assert (received["event"], received["incident"]) == ("breaker_opened", 2)
    (failed,) = [entry for entry in journal.newest() if entry["event"] == "notice_not_delivered"]
    assert (failed["cause"], failed["fields"]["channel"]) == ("no desktop", "desktop")
    task.cancel()
    journal.close()


async def test_notifier_without_the_apprise_package_records_how_to_install_it(
    tmp_path: Path, session, monkeypatch
):
    monkeypatch.setattr(apprise_channel, "is_installed", lambda: False)
    settings = NotificationsSection(desktop=False, apprise=["json://host/secret-path"])
    assert channels(settings, session) == {}
    journal = Journal(tmp_path / "journal.db")
    why = not_possible(settings)
    task = asyncio.create_task(Notifier(journal, Incidents(journal), {}, not_possible=why).run())
    await asyncio.sleep(0)
    (entry,) = journal.newest()
    assert entry["event"] == "notices_not_possible"
    assert "pip install 'vestal[notifications]'" in entry["cause"]
    assert "secret-path" not in entry["cause"]
    task.cancel()
    journal.close()


async def test_apprise_notification_is_delivered_to_a_real_server(webhook):
    url = webhook.url.replace("http://", "json://")
    await apprise_channel.send([url], NOTICE)
    (received,) = webhook.received
    assert received["title"] == "Vestal: mlx_engine keeps failing"
    assert received["message"] == NOTICE.text
    assert received["type"] == "warning"


async def test_apprise_notification_that_fails_names_its_urls_by_number_without_their_secrets(webhook):
    webhook.status = 403
    urls = [webhook.url.replace("http://", "json://"), "nonsense://secret-path", "slack://secret-path"]
    with pytest.raises(NotDelivered) as failed:
        await apprise_channel.send(urls, NOTICE)
    assert str(failed.value).startswith("Apprise did not reach URL 1 (json) and URL 2 (nonsense), which")
    assert "secret-path" not in str(failed.value)


async def test_apprise_notification_to_a_silent_server_fails_at_the_time_limit(free_port):
    async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    port = free_port()
    async with await asyncio.start_server(never_answer, "127.0.0.1", port):
        with pytest.raises(NotDelivered, match="Apprise did not send it"):
            await apprise_channel.send([f"json://127.0.0.1:{port}/x"], NOTICE, timeout_s=1.0)


class Clocks:
    """A notifier's two clocks: both go on with real time, and each can be set."""

    def __init__(self) -> None:
        self.wall_ahead_s = self.monotonic_ahead_s = 0.0
        self.looked = 0

    def wall(self) -> float:
        self.looked += 1
        return time.time() + self.wall_ahead_s

    def monotonic(self) -> float:
        return time.monotonic() + self.monotonic_ahead_s


async def test_notifier_reports_an_incident_after_a_minute_and_stays_idle_if_no_channel_is_configured(
    tmp_path: Path,
):
    """Hours of sleep once counted for the minute, and after the clock was set back no notice was sent."""
    journal, sent, clocks = Journal(tmp_path / "journal.db"), list[Notice](), Clocks()

    async def channel(notice: Notice) -> None:
        sent.append(notice)

    def notifier(found: dict[str, Channel]) -> asyncio.Task[None]:
        made = Notifier(journal, incidents, found, wall=clocks.wall, monotonic=clocks.monotonic)
        return asyncio.create_task(made.run())

    incidents = Incidents(journal)
    journal.record("mlx_server", "health_failed", "no answer")
    silent = notifier({})
    await asyncio.sleep(0.3)
    assert clocks.looked == 0, "there is nobody to notify"
    silent.cancel()
    task = notifier({"one": channel})
    await asyncio.sleep(0)
    for clocks.wall_ahead_s in (8 * 3600.0, -7200.0):  # the machine sleeps, and the clock is set back
        journal.record("mlx_server", "child_start_timed_out", "no answer")
        await asyncio.sleep(0.05)
        assert sent == []
    clocks.monotonic_ahead_s = LASTS_S
    journal.record("mlx_server", "child_start_timed_out", "no answer")
    async with asyncio.timeout(WITHIN_S):
        with journal.follow() as entries:
            while (await entries.get() or {}).get("event") != "notice_delivered":
                pass
    assert [notice.event for notice in sent] == ["incident_lasts"]
    task.cancel()
    journal.close()


async def test_notifier_sends_a_notice_a_minute_after_the_start_without_a_further_event(tmp_path: Path):
    journal, sent, clocks = Journal(tmp_path / "journal.db"), asyncio.Event(), Clocks()

    async def channel(notice: Notice) -> None:
        sent.set()

    incidents = Incidents(journal)
    journal.record("mlx_server", "health_failed", "no answer")
    looks = iter([0.0, LASTS_S - 0.1])
    monotonic = lambda: next(looks, LASTS_S)  # noqa: E731 - first seen, then 0.1 s before a minute, then later
    task = asyncio.create_task(
        Notifier(journal, incidents, {"one": channel}, wall=clocks.wall, monotonic=monotonic).run()
    )
    async with asyncio.timeout(WITHIN_S):
        await sent.wait()
    task.cancel()
    journal.close()
