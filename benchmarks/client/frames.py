"""Split a streamed answer into its frames: lines, or server-sent events. Pure."""

from __future__ import annotations


class FrameReader:
    """Joins the bytes of one connection into whole frames: server-sent events if `content_type` is
    `text/event-stream`, else lines. A frame that is incomplete when the connection ends is dropped.
    """

    def __init__(self, content_type: str) -> None:
        self._end = b"\n\n" if content_type.startswith("text/event-stream") else b"\n"
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Add `data`, the next bytes of the connection, and return the frames that it completes, without
        their delimiters. An incomplete rest is kept for the next call.
        """
        *frames, self._rest = (self._rest + data).split(self._end)
        return frames


def data_of(frame: bytes) -> bytes:
    """Return the JSON object in a frame; b"" if it has none, because it is a comment or `[DONE]`."""
    lines = (line.removeprefix(b"data:").strip() for line in frame.split(b"\n"))
    return next((line for line in lines if line.startswith(b"{")), b"")
