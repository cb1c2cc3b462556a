"""Follow the journal, and send a person the few notices that matter."""

from __future__ import annotations

from collections.abc import Mapping

from host_agent.journal import Journal
from host_agent.notifications.channels import Channel
from host_agent.notifications.notices import Notice, NoticeFilter


class Notifier:
    """Sends each notice to every channel, and records in the journal whether it was delivered."""

    def __init__(self, journal: Journal, channels: Mapping[str, Channel]) -> None:
        self._journal, self._channels = journal, channels
        self._filter = NoticeFilter()

    async def run(self) -> None:
        """Run until the journal disconnects this follower."""
        with self._journal.follow() as entries:
            while (entry := await entries.get()) is not None:
                if notice := self._filter.notice_for(entry):
                    await self._deliver(notice)

    async def _deliver(self, notice: Notice) -> None:
        """Send the notice to every channel. A channel that fails does not keep it from the others."""
        for name, channel in self._channels.items():
            try:
                await channel(notice)
            except Exception as error:
                self._journal.record("notifications", "notice_not_delivered", str(error), channel=name)
            else:
                self._journal.record("notifications", "notice_delivered", notice.title, channel=name)
