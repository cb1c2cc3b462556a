"""The commands `vestal install` and `vestal uninstall`: the jobs of launchd or systemd."""
