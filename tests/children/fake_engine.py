"""An engine without MLX: it speaks the gateway's protocol, and dies or hangs as a prompt orders.

The token at position i of a prompt is a function of the prompt and i, so any engine can continue where
another stopped. A prompt may contain these directives, among its first 2,000 characters:

    tokens=N     the length of the answer (20)      step_ms=N    milliseconds that a token takes (2)
    die_at=N     SIGKILL itself before token N      once=1       only the first engine of this home does it
    abort_at=N   SIGABRT itself before token N     replay_ms=N  milliseconds before it goes on with an answer
    hang_at=N    SIGSTOP itself before token N      stall_at=N   report to be alive, but make no progress
    hold_at=N    wait before token N until the test lets it go on, and report progress meanwhile
    fail=CODE    refuse the request with this code  late=1       ... not at its check, but when it may go on

The query of a request that ranks documents may contain the first column too: there the N at which an engine
dies is the text of a document, "0" or "1", and step_ms is the time for each document.

A test lets an engine go on by the file `go_on` in VESTAL_HOME. What waits for it lasts as long as the test
needs, on however busy a machine.

The file `fake_engine.json` in VESTAL_HOME, which is read at the start, may contain:

    {"exit_code": N}             exit at once           {"ignore_term": true}     ignore SIGTERM
    {"standby_exit_code": N}     exit at once if it is a standby engine
    {"starts_held": true}        load the first model once the test lets it go on
    {"ready_by_token": true}     all engines but the first are ready only after their first token
    {"refuses": CODE}               refuse every request with this code, at its check and when it runs
    {"senseless": true}          the first probe fails  {"mute_when_probed": true}  no probe is answered
    {"calls_tools": true}        a user's message is answered by a call of the first tool that is offered
    {"calls": {NAME: {…}}}       a user's message is answered by a call of this tool, if it is offered, with
                                 these arguments; its output is the prompt of the next turn
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import socket
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlx_server import protocol

HOME = Path(os.environ.get("VESTAL_HOME", "."))
GO_ON = HOME / "go_on"
LOOK_S = 0.01
DIM = 3
READ_BYTES = 256 * 1024
SIGNALS = {"die_at": signal.SIGKILL, "abort_at": signal.SIGABRT, "hang_at": signal.SIGSTOP}
VALUES: dict[Any, Any] = {"boolean": False, "integer": 1, "number": 1, "array": [], "object": {}}
"""The arguments of the calls that it makes, by the type in the tool's schema; others are a text."""


def token_at(prompt: str, index: int) -> tuple[int, str]:
    """Return the token and its text that every engine produces at this position of the answer."""
    token = zlib.crc32(f"{prompt}/{index}".encode()) % 50_000
    return token, f"t{token}-{index} "


def text_of(prompt: str, tokens: int) -> str:
    """Return the whole answer of `tokens` tokens."""
    return "".join(token_at(prompt, index)[1] for index in range(tokens))


def directives(prompt: str) -> dict[str, str]:
    return dict(re.findall(r"(\w+)=(\w+)", prompt[:2000]))


class FakeEngine:
    def __init__(self, sock: socket.socket, settings: dict[str, Any], spare: bool) -> None:
        self.spare = spare
        self.sock = sock
        self.settings = settings
        self.frames = protocol.FrameBuffer()
        self.work: dict[str, asyncio.Task[None]] = {}
        self.steps = 0
        self.loaded: dict[str, float | None] = {}
        self.ended = asyncio.Event()
        self.first_token = asyncio.Event()
        self.stalled = False

    async def run(self) -> None:
        reader, self.writer = await asyncio.open_connection(sock=self.sock)
        # `drain` then waits until all is sent, which an engine that kills itself could not do any more.
        self.writer.transport.set_write_buffer_limits(high=0)
        for number in (signal.SIGTERM, signal.SIGINT):
            if not self.settings.get("ignore_term"):
                asyncio.get_running_loop().add_signal_handler(number, self.ended.set)
        if self.spare:
            data = await reader.read(READ_BYTES)
            if not data:
                os._exit(0)
            first_operation, *rest = self.frames.feed(data)
            assert protocol.decode_op(first_operation) == protocol.Begin()
            assert not rest
        self.say(protocol.Hello(os.getpid(), "fake", "0", "none"))
        while self.settings.get("starts_held") and not GO_ON.exists():  # noqa: ASYNC110 - the test makes it
            await asyncio.sleep(LOOK_S)
        self.loaded["chat:latest"] = None
        self.say(protocol.Loaded("chat:latest", 1000, 0.0, "preload/chat:latest"))
        jobs = {asyncio.ensure_future(job) for job in (self.read(reader), self.live(), self.ended.wait())}
        await asyncio.sleep(0)  # the first heartbeat comes before the engine is ready
        if self.settings.get("ready_by_token") and not first("ready"):
            await self.first_token.wait()
        self.say(protocol.Ready(("chat:latest",), 0.0))
        await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
        os._exit(0)

    def say(self, event: protocol.Event) -> None:
        self.writer.write(protocol.encode(event))

    async def live(self) -> None:
        while True:
            held = tuple(
                protocol.LoadedModelReport(name, "generate", 1000, 512, left if left and left > 0 else None)
                for name, left in self.loaded.items()
            )
            working = bool(self.work) or self.stalled
            self.say(protocol.Alive(self.steps, working, 1000, held))
            await asyncio.sleep(0.1)

    async def read(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(READ_BYTES):
            for frame in self.frames.feed(data):
                self.take(protocol.decode_op(frame))

    def take(self, op: protocol.Op) -> None:
        match op:
            case protocol.Generate(check_only=True):
                self.check(op)
            case protocol.Generate():
                self.work[op.id] = asyncio.ensure_future(self.generate(op))
            case protocol.Rerank():
                self.work[op.id] = asyncio.ensure_future(self.rerank(op))
            case protocol.Embed():
                self.say(
                    protocol.Embedding(op.id, protocol.pack_vectors([vector(t) for t in op.texts]), DIM, 4)
                )
            case protocol.Load():
                self.loaded[op.model] = op.keep_alive_s
                self.say(protocol.Loaded(op.model, 1000, 0.1, op.id))
            case protocol.Unload():
                self.loaded.pop(op.model, None)
                self.say(protocol.Unloaded(op.model, op.id))
            case protocol.Cancel():
                if task := self.work.pop(op.id, None):
                    task.cancel()
                    self.say(protocol.Done(op.id, "cancelled", protocol.Usage(1, 0)))
                with (HOME / "cancelled").open("a") as file:
                    file.write(f"{op.id}\n")
            case protocol.Probe():
                if not self.stalled and not self.settings.get("mute_when_probed"):
                    senseless = self.settings.get("senseless") and first("senseless")
                    self.say(
                        protocol.Probed(op.id, not senseless, "a vector has norm nan" if senseless else "")
                    )
            case protocol.Shutdown():
                self.ended.set()
            case _:
                raise AssertionError(op)

    def check(self, op: protocol.Generate) -> None:
        orders = directives(prompt_of(op))
        code = self.settings.get("refuses") or ("late" not in orders and orders.get("fail"))
        if code:
            self.say(protocol.Failed(op.id, code, f"the prompt orders this failure: {code}"))  # type: ignore[arg-type]
        else:
            self.say(protocol.Accepted(op.id, 7))

    async def generate(self, op: protocol.Generate) -> None:
        if op.count_only:
            self.work.pop(op.id)
            pieces = ("a",) * 7 if op.reports_pieces else ()
            report = protocol.PromptReport((1,) * 7, "a" * 7, pieces) if op.reports_prompt else None
            self.say(protocol.Done(op.id, "stop", protocol.Usage(7, 0), prompt=report))
            return
        said, prompt = said_in(op), prompt_of(op)
        orders = directives(prompt)
        length = min(int(orders.get("tokens", 20)), 1_000_000 if op.max_tokens is None else op.max_tokens)
        for index, token in enumerate(op.emitted):
            assert token == token_at(prompt, index)[0], "the tokens given back are not those sent"
        if code := self.settings.get("refuses") or orders.get("fail"):
            if orders.get("late"):
                await self.hold()
            self.work.pop(op.id)
            self.say(protocol.Failed(op.id, code, f"the prompt orders this failure: {code}"))  # type: ignore[arg-type]
            return
        if op.emitted:
            await asyncio.sleep(int(orders.get("replay_ms", 0)) / 1000)
        self.say(protocol.Prefill(op.id, 1, 1))
        if said[-1].get("role") == "user" and (call := self.call_for(op.tools or ())):
            self.call_tool(op, call)
            return
        for index in range(len(op.emitted), length):
            await self.misbehave(orders, index)
            if orders.get("hold_at") == str(index):
                await self.hold()
            await asyncio.sleep(int(orders.get("step_ms", 2)) / 1000)
            token, text = token_at(prompt, index)
            self.steps += 1
            self.say(protocol.Token(op.id, token, text, index, prompt_tokens=None if index else 7))
            self.first_token.set()
        self.work.pop(op.id)
        usage = protocol.Usage(7, length, 0.0, 0.001, 0.002)
        self.say(protocol.Done(op.id, "length" if op.max_tokens == length else "stop", usage))

    async def rerank(self, op: protocol.Rerank) -> None:
        orders = directives(op.query)
        for text in op.documents:
            if text in ("0", "1"):
                await self.misbehave(orders, int(text))
            await asyncio.sleep(int(orders.get("step_ms", 0)) / 1000)
            self.steps += 1
        self.work.pop(op.id)
        scores = tuple(score(op.query, text) for text in op.documents)
        self.say(protocol.Reranked(op.id, scores, 4 * len(scores)))

    def call_for(self, tools: Sequence[dict[str, Any]]) -> protocol.ToolCall | None:
        """Return the call by which a user's message is answered, or None."""
        functions = [tool["function"] for tool in tools]
        for function in functions:
            arguments = self.settings.get("calls", {}).get(function["name"])
            if arguments is not None:
                return protocol.ToolCall(function["name"], arguments)
        if not functions or not self.settings.get("calls_tools"):
            return None
        schema = functions[0].get("parameters") or {}
        names = schema.get("required") or schema.get("properties", {})
        types = {name: schema.get("properties", {}).get(name, {}).get("type") for name in names}
        arguments = {name: VALUES.get(of_type, "Oslo") for name, of_type in types.items()}
        return protocol.ToolCall(functions[0]["name"], arguments)

    def call_tool(self, op: protocol.Generate, call: protocol.ToolCall) -> None:
        self.say(protocol.Token(op.id, 1, "", 0, tool_calls=(call,), prompt_tokens=7))
        self.work.pop(op.id)
        self.say(protocol.Done(op.id, "tool_calls", protocol.Usage(7, 1)))

    async def hold(self) -> None:
        """Wait until the test lets this engine go on. It makes progress meanwhile, as far as it reports."""
        while not GO_ON.exists():
            self.steps += 1
            await asyncio.sleep(LOOK_S)

    async def misbehave(self, orders: dict[str, str], index: int) -> None:
        deed = next((d for d in (*SIGNALS, "stall_at") if orders.get(d) == str(index)), None)
        if deed is None or (orders.get("once") and not first(f"{deed}{index}")):
            return
        await self.writer.drain()
        if deed == "stall_at":
            self.stalled = True
            await asyncio.Event().wait()
        os.kill(os.getpid(), SIGNALS[deed])


def said_in(op: protocol.Generate) -> list[dict[str, Any]]:
    """Return the messages up to the user's last one: agents put system messages after it."""
    return [message for message in op.messages or () if message["role"] != "system"] or [{}]


def prompt_of(op: protocol.Generate) -> str:
    if op.prompt_ids is not None:
        return " ".join(map(str, op.prompt_ids))
    if op.prompt is not None:
        return op.prompt
    parts = [part for message in op.messages or () for part in parts_of(message)]
    assert sum(part["type"] == "image" for part in parts) == len(op.images)
    return "".join(part.get("text", "") for part in parts_of(said_in(op)[-1])) + marks_of(op.images)


def parts_of(message: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the parts of a message; a text is one part."""
    content = message.get("content") or ""
    return content if isinstance(content, list) else [{"type": "text", "text": content}]


def marks_of(images: Sequence[str]) -> str:
    """Return what stands for the images in a prompt, so that other images lead to another answer."""
    return "".join(f" image{zlib.crc32(image.encode())}" for image in images)


def score(query: str, document: str) -> float:
    """Return the score that every engine gives to this document."""
    return zlib.crc32(f"{query}/{document}".encode()) / 2**32


def vector(text: str) -> list[float]:
    return [float(len(text)), 1.0, 0.5]


def first(deed: str) -> bool:
    try:
        (HOME / deed).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--standby", action="store_true")
    options = parser.parse_args()
    fd = options.fd
    file = HOME / "fake_engine.json"
    settings = json.loads(file.read_text()) if file.exists() else {}
    exit_code = settings.get("exit_code", settings.get("standby_exit_code") if options.standby else None)
    if exit_code is not None:
        print("the fake engine exits as its file orders", file=sys.stderr)
        sys.exit(exit_code)
    asyncio.run(FakeEngine(socket.socket(fileno=fd), settings, options.standby).run())


if __name__ == "__main__":
    main()
