"""The answer log: accepted requests and the events that their clients received, in files that outlive the
gateway.

Each generating request has one append-only file (mode 0600, in a folder of mode 0700). Its first record is
the HTTP request as it was accepted; each event of the engine that the client received follows, in order. A
new gateway replays the events through the same renderer, so that the same frames come out, and has the engine
continue after the last token. A file is never rewritten; it is deleted once it expires.

Nothing is synced to the disk (fsync). Written data survives the death of every process, since the kernel has
it, but perhaps not a power cut. A sync would take 5 ms or more for each token, and a power cut ends the
clients' connections anyway. A record that was cut off is recognized by its checksum, and the records before
it are used.

One thread does all writing. It is up to 50 ms late, and later on a slow disk; a gateway that is killed loses
the events of that time, and the next gateway has the engine compute them again.
"""

from mlx_server.gateway.answer_log.folder import LogInUse
from mlx_server.gateway.answer_log.log import AnswerLog
from mlx_server.gateway.answer_log.log_at_end import LogAtEnd
from mlx_server.gateway.answer_log.no_log import LockOnlyLog, NoLog
from mlx_server.gateway.answer_log.records import (
    FORMAT,
    FORMAT_OF_REFERENCES,
    Accepted,
    Ended,
    Event,
    Left,
    Record,
    Referenced,
    Silence,
    TakenUp,
    pack_record,
    read_records,
)

__all__ = [
    "FORMAT",
    "FORMAT_OF_REFERENCES",
    "Accepted",
    "AnswerLog",
    "Ended",
    "Event",
    "Left",
    "LockOnlyLog",
    "LogAtEnd",
    "LogInUse",
    "NoLog",
    "Record",
    "Referenced",
    "Silence",
    "TakenUp",
    "pack_record",
    "read_records",
]
