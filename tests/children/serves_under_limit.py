"""An aiohttp service that may open few files: `serves_under_limit.py PORT DESCRIPTORS CONNECTIONS`.

GET / is answered at once; GET /slow after 3 s. CONNECTIONS is how many clients it believes to have room for.
"""

from __future__ import annotations

import asyncio
import resource
import sys

from aiohttp import web

from vestal.web.aiohttp_runner import JsonAppRunner


async def answer(request: web.Request) -> web.Response:
    return web.Response(text="here")


async def answer_slowly(request: web.Request) -> web.Response:
    await asyncio.sleep(3)
    return web.Response(text="here")


async def main(port: int, descriptors: int, connections: int) -> None:
    app = web.Application()
    app.add_routes([web.get("/", answer), web.get("/slow", answer_slowly)])
    runner = JsonAppRunner(
        app,
        report_dropped=lambda count: print("dropped", count, flush=True),
        report_stuck=lambda error: print("stuck", error.strerror, flush=True),
    )
    await runner.setup()
    runner.connections.max_open = connections
    await runner.listen("127.0.0.1", port)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
    print("listening", flush=True)
    await asyncio.Event().wait()


asyncio.run(main(*map(int, sys.argv[1:])))
