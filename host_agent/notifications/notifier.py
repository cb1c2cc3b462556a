"""Follows the journal and tells a person what matters."""

from __future__ import annotations

from collections.abc import Mapping

from host_agent.journal import Journal
from host_agent.notifications.channels import Channel
from host_agent.notifications.notices import Notice, Notices


class Notifier:
    """One reader of the journal. A channel that fails is noted, and the others get theirs."""

    def __init__(self, journal: Journal, channels: Mapping[str, Channel]) -> None:
        self._journal, self._channels = journal, channels
        self._notices = Notices()

    async def run(self) -> None:
        """Until the journal ends this reader."""
        with self._journal.follow() as entries:
            while (entry := await entries.get()) is not None:
                if notice := self._notices.of(entry):
                    await self._tell(notice)

    async def _tell(self, notice: Notice) -> None:
        for name, channel in self._channels.items():
            try:
                await channel(notice)
            except Exception as error:  # whatever a channel raises, the others come next
                self._journal.record("notifications", "notice_not_delivered", str(error), channel=name)
            else:
                self._journal.record("notifications", "notice_delivered", notice.title, channel=name)
