"""Notifications for a person: on the desktop, to a webhook, and through Apprise."""
