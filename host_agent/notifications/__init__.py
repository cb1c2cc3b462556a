"""Notifications for a person: on the desktop, and to a webhook."""
