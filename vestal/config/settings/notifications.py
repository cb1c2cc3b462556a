"""The section `notifications`: how a person is notified of faults that only a person can mend."""

from pydantic import Field

from vestal.config.settings.field_types import Section


class NotificationsSection(Section):
    """Notifications on the desktop, if there is one, and as JSON that is posted to a webhook."""

    desktop: bool = True
    webhook_url: str | None = Field(default=None, pattern=r"^https?://[^/\s]+", repr=False)
