"""Commands that install and remove the jobs of launchd or systemd."""
