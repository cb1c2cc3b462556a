"""Reads macOS's JetsamEvent reports: whom the kernel killed for memory. Pure.

A line of JSON (the header, with the time), then one JSON object. Only what was killed has a `reason`:
`per-process-limit` and `highwater` are its own limits, the others a lack of memory in the whole system.
"""

import json
from datetime import datetime
from pathlib import Path

from vestal.platform.kernel_log import Kill

FOLDER = Path("/Library/Logs/DiagnosticReports")
PATTERN = "JetsamEvent-*.ips"
OF_ITS_OWN = ("per-process-limit", "highwater")


def kills(text: str) -> list[Kill]:
    """Every process that this event ended; none for a report in another form."""
    header, _, body = text.partition("\n")
    try:
        at = datetime.strptime(json.loads(header)["timestamp"], "%Y-%m-%d %H:%M:%S.%f %z").timestamp()
        report = json.loads(body)
        page = int(report["memoryStatus"]["pageSize"])
        return [
            Kill(
                at,
                int(each["pid"]),
                str(each["name"]),
                int(each["rpages"]) * page,
                each["reason"] in OF_ITS_OWN,
            )
            for each in report["processes"]
            if each.get("reason")
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []
