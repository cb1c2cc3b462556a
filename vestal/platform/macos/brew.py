"""Parse `brew services list --json`: which services Homebrew manages, and as which user. Pure."""

import json
from dataclasses import dataclass

PLACES = ("/opt/homebrew/bin", "/usr/local/bin", "/home/linuxbrew/.linuxbrew/bin")
ARGUMENTS = ("services", "list", "--json")
LOGS = ("/opt/homebrew/var/log", "/usr/local/var/log")
TIMEOUT_S = 15.0  # brew is a Ruby program, and slow to start


@dataclass(frozen=True)
class BrewService:
    """One service. `status` is Homebrew's word: started, scheduled, stopped, error, none, unknown, other."""

    name: str
    status: str
    user: str = ""

    @property
    def runs(self) -> bool:
        """Return whether Homebrew keeps the service running, or tries to."""
        return self.status in ("started", "scheduled", "error")


def parse(text: str) -> dict[str, BrewService]:
    """Return the services in `text`, the output of `brew services list --json`, by name. Return an empty
    dictionary if `text` is anything else.
    """
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
