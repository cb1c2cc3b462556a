"""A conversation with a model: its messages, and the commands that a person types during it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

QUOTES = '"""'
HELP = (
    "/model          lists the models; /model NAME goes on with another one",
    "/clear          forgets the conversation",
    "/bye            leaves, as Ctrl-D does",
    '"""             begins and ends a message of several lines',
    "Ctrl-C          stops the answer",
)
COMMANDS = ("/model", "/clear", "/bye", "/exit", "/help", "/?")


@dataclass
class Conversation:
    """The model and all messages so far, which are sent to the model with each question."""

    model: str
    messages: list[dict[str, str]] = field(default_factory=list)

    def ask(self, text: str) -> dict[str, object]:
        """Add a question, and return the body of the request to /api/chat."""
        self.messages.append({"role": "user", "content": text})
        return {"model": self.model, "messages": list(self.messages), "stream": True}

    def answered(self, text: str) -> None:
        """Add the answer, or the part of the answer that arrived. If nothing arrived, remove the question."""
        if text:
            self.messages.append({"role": "assistant", "content": text})
        elif self.messages:
            self.messages.pop()

    def clear(self) -> None:
        """Remove all messages."""
        self.messages.clear()


def command_of(text: str) -> tuple[str, str] | None:
    """Return the name and argument of a command such as `/model NAME`, or None if the text is a message.

    A text that begins with `/` is a message if it has several lines. It is also a message if its first word
    is no known command and has a second `/`, because the word may be a path such as /etc/hosts.
    """
    name, _, argument = text.strip().partition(" ")
    if "\n" in text.strip() or not name.startswith("/"):
        return None
    return (name, argument.strip()) if name in COMMANDS or "/" not in name[1:] else None


class MessageLines:
    """Joins the typed lines of one message: a single line, or several lines between two triple quotes."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self.is_open = False

    def add(self, line: str) -> str | None:
        """Add a typed line. Return the message if the line completes it, or None if more lines must
        follow.
        """
        if not self.is_open:
            before, quotes, after = line.partition(QUOTES)
            if not quotes or before.strip():
                return line
            if QUOTES in after:
                return after.partition(QUOTES)[0]
            self.is_open, self._lines = True, [after] if after else []
            return None
        text, quotes, _ = line.partition(QUOTES)
        if not quotes:
            self._lines.append(line)
            return None
        self.is_open = False
        return "\n".join([*self._lines, *([text] if text else [])])

    def abandon(self) -> None:
        """Drop the lines of an incomplete message."""
        self.is_open, self._lines = False, []
