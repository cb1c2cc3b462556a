"""Parse macOS's JetsamEvent reports: which processes the kernel killed for memory. Pure.

A report is one line of JSON (a header with the time), then one JSON object. Only the processes that were
killed have a `reason`. `per-process-limit` and `highwater` are limits of the process itself; every other
reason is a shortage of the whole machine.
"""

import json
from datetime import datetime
from pathlib import Path

from vestal.platform.kernel_log import OomKill

REPORTS_FOLDER = Path("/Library/Logs/DiagnosticReports")
REPORTS_PATTERN = "JetsamEvent-*.ips"
OWN_LIMITS = ("per-process-limit", "highwater")


def oom_kills(text: str) -> list[OomKill]:
    """Return every process that the kernel killed for memory according to `text`, the content of a
    JetsamEvent report. Return an empty list for a malformed report.
    """
    header, _, body = text.partition("\n")
    try:
        at = datetime.strptime(json.loads(header)["timestamp"], "%Y-%m-%d %H:%M:%S.%f %z").timestamp()
        report = json.loads(body)
        page_bytes = int(report["memoryStatus"]["pageSize"])
        return [
            OomKill(
                at,
                int(process["pid"]),
                str(process["name"]),
                int(process["rpages"]) * page_bytes,
                process["reason"] in OWN_LIMITS,
            )
            for process in report["processes"]
            if process.get("reason")
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []
