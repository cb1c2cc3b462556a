"""The section `notifications`: how a person is notified of faults that only a person can repair."""

from typing import Annotated

from pydantic import Field

from vestal.config.settings.field_types import HttpUrl, Section

ServiceUrl = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9+.-]*://\S*$")]
"""A URL that Apprise knows, such as discord://WEBHOOK_ID/WEBHOOK_TOKEN. It holds secrets."""


class NotificationsSection(Section):
    """Notifications on the desktop, if there is one, to a webhook as JSON, and to services through
    Apprise.
    """

    desktop: bool = True
    webhook_url: HttpUrl | None = Field(default=None, repr=False)
    apprise: list[ServiceUrl] = Field(default=[], repr=False)
