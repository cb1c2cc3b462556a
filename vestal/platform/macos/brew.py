"""Reads `brew services list --json`: which services Homebrew keeps, and as which user. Pure."""

import json
from dataclasses import dataclass

PLACES = ("/opt/homebrew/bin", "/usr/local/bin", "/home/linuxbrew/.linuxbrew/bin")
ARGUMENTS = ("services", "list", "--json")
LOGS = ("/opt/homebrew/var/log", "/usr/local/var/log")
WITHIN_S = 15.0  # brew is Ruby, and starts slowly


@dataclass(frozen=True)
class BrewService:
    """`status` is Homebrew's word: started, scheduled, stopped, error, none, unknown, other."""

    name: str
    status: str
    user: str = ""

    @property
    def runs(self) -> bool:
        return self.status in ("started", "scheduled", "error")


def parse(text: str) -> dict[str, BrewService]:
    """By name; empty for what is no such list."""
    try:
        listed = json.loads(text)
        return {
            str(entry["name"]): BrewService(
                str(entry["name"]), str(entry.get("status")), entry.get("user") or ""
            )
            for entry in listed
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
