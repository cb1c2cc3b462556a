"""Find the name of this machine's time zone, which containers do not know by themselves."""

import os
from collections.abc import Mapping
from pathlib import Path

LOCAL_TIME = Path("/etc/localtime")
NAME_FILE = Path("/etc/timezone")  # of Debian, where LOCAL_TIME may be a copy and not a link
FOLDER = "/zoneinfo/"


def find_time_zone(env: Mapping[str, str], local_time: Path = LOCAL_TIME, name_file: Path = NAME_FILE) -> str:
    """Return the time zone as a value of TZ that is right in a container too, such as `Europe/Berlin`: the
    TZ in `env`, else the zone that the link `local_time` or the text of `name_file` names. Return "", which
    means UTC, if none of them names one.

    A TZ that is a path, such as `:/etc/localtime`, is not used, because the container has other files.
    """
    given = env.get("TZ", "").removeprefix(":")
    return (given if not given.startswith("/") else "") or _name_of_link(local_time) or _text_of(name_file)


def _name_of_link(path: Path) -> str:
    try:
        return os.readlink(path).partition(FOLDER)[2]
    except OSError:
        return ""


def _text_of(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return ""
