"""The channels by which a notice reaches a person: the desktop, a webhook, and Apprise."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from http import HTTPStatus

import aiohttp

from host_agent.notifications import apprise_channel
from host_agent.notifications.apprise_channel import NOT_INSTALLED, NotDelivered
from host_agent.notifications.notices import Notice
from host_agent.services.find_program import find_program
from vestal.config.settings import NotificationsSection
from vestal.platform.commands import run_async

Channel = Callable[[Notice], Awaitable[None]]
"""Delivers one notice, or raises an exception whose text is a sentence for a person."""

TIMEOUT_S = 10.0
OSASCRIPT = (
    "on run argv",
    "display notification (item 2 of argv) with title (item 1 of argv)",
    "end run",
)
"""The notice's text is passed as an argument, never as part of the script, because it may quote any log
line.
"""


def channels(settings: NotificationsSection, session: aiohttp.ClientSession) -> dict[str, Channel]:
    """Return the channels that are configured and possible on this machine, by name."""
    found: dict[str, Channel] = {}
    if settings.desktop and (command := desktop_command()):
        found["desktop"] = lambda notice: show_on_desktop(command, notice)
    if url := settings.webhook_url:
        found["webhook"] = lambda notice: post_to_webhook(session, url, notice)
    if (urls := settings.apprise) and apprise_channel.is_installed():
        found["apprise"] = lambda notice: apprise_channel.send(urls, notice)
    return found


def not_possible(settings: NotificationsSection) -> str:
    """Return why a configured channel cannot work on this machine, with the remedy; "" if all can."""
    return NOT_INSTALLED if settings.apprise and not apprise_channel.is_installed() else ""


def desktop_command() -> tuple[str, ...] | None:
    """Return the command that shows a notification once title and text are appended; None if this machine has
    none.
    """
    if sys.platform == "darwin":
        script = [word for line in OSASCRIPT for word in ("-e", line)]
        return ("/usr/bin/osascript", *script)
    program = find_program("notify-send")
    return (program, "--app-name=Vestal", "--") if program else None


async def show_on_desktop(command: tuple[str, ...], notice: Notice) -> None:
    """Run `command`, with the notice's title and text appended as two arguments. Raises NotDelivered if the
    command fails.
    """
    result = await run_async(*command, f"Vestal: {notice.title}", notice.text, timeout_s=TIMEOUT_S)
    if result.exit_code:
        reason = result.text.strip() or f"exit code {result.exit_code}"
        raise NotDelivered(f"{command[0]}: {reason}.")


async def post_to_webhook(session: aiohttp.ClientSession, url: str, notice: Notice) -> None:
    """Post the notice as JSON to the webhook at `url`. Raises NotDelivered if the webhook does not answer, or
    answers with an error status. The exception's message omits the URL, which may hold a secret.
    """
    try:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with session.post(url, json=notice.as_json(), timeout=timeout) as reply:
            status = reply.status
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise NotDelivered(f"The webhook did not answer ({type(error).__name__}).") from error
    if status >= HTTPStatus.BAD_REQUEST:
        raise NotDelivered(f"The webhook answered {status}.")
