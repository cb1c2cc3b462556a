"""The ways to a person. Each takes a notice, and raises with a sentence where it could not be delivered."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from http import HTTPStatus

import aiohttp

from host_agent.errors import HostAgentError
from host_agent.notifications.notices import Notice
from host_agent.services.find_program import find_program
from vestal.config.settings import NotificationsSection
from vestal.platform.commands import run_async

Channel = Callable[[Notice], Awaitable[None]]
WITHIN_S = 10.0
OSASCRIPT = (
    "on run argv",
    "display notification (item 2 of argv) with title (item 1 of argv)",
    "end run",
)
"""The words are arguments, never part of the script: a log line may hold anything."""


class NotDelivered(HostAgentError):
    code = "not_delivered"


def channels(settings: NotificationsSection, session: aiohttp.ClientSession) -> dict[str, Channel]:
    """Those there are, by name."""
    found: dict[str, Channel] = {}
    if settings.desktop and (command := desktop_command()):
        found["desktop"] = lambda notice: show(command, notice)
    if url := settings.webhook_url:
        found["webhook"] = lambda notice: post(session, url, notice)
    return found


def desktop_command() -> tuple[str, ...] | None:
    """The program that shows a notification, before its title and text; None where there is none."""
    if sys.platform == "darwin":
        script = [word for line in OSASCRIPT for word in ("-e", line)]
        return ("/usr/bin/osascript", *script)
    program = find_program("notify-send")
    return (program, "--app-name=Vestal", "--") if program else None


async def show(command: tuple[str, ...], notice: Notice) -> None:
    """Raises NotDelivered."""
    done = await run_async(*command, f"Vestal: {notice.title}", notice.text, timeout_s=WITHIN_S)
    if done.exit_code:
        why = done.text.strip() or f"exit code {done.exit_code}"
        raise NotDelivered(f"{command[0]}: {why}.")


async def post(session: aiohttp.ClientSession, url: str, notice: Notice) -> None:
    """Raises NotDelivered, which does not tell the address: it may hold a secret."""
    try:
        timeout = aiohttp.ClientTimeout(total=WITHIN_S)
        async with session.post(url, json=notice.as_json(), timeout=timeout) as reply:
            status = reply.status
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise NotDelivered(f"the webhook did not answer ({type(error).__name__}).") from error
    if status >= HTTPStatus.BAD_REQUEST:
        raise NotDelivered(f"the webhook answered {status}.")
