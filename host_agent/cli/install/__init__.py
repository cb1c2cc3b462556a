"""The commands `vestal install` and `vestal uninstall`, which add and remove Vestal's jobs of launchd or
systemd.
"""
