"""An OpenAI-compatible replica that says what the test tells it to, when it tells it to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from webapp.server import listen

END = None
BREAK = ""
"""The connection ends here, with half an answer."""


class Replica:
    """`say` queues words for the requests under way; `asked` has the prompt of each request, in order."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._words: asyncio.Queue[str | None] = asyncio.Queue()
        self.app = Starlette(
            routes=[
                Route("/health", lambda request: Response()),
                Route("/v1/models", lambda request: JSONResponse({"data": [{"id": "stub"}]})),
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
            ]
        )

    def say(self, *words: str | None) -> None:
        for word in words:
            self._words.put_nowait(word)

    async def _chat(self, request: Request) -> Response:
        body = await request.json()
        self.asked.append(body["messages"][-1]["content"])
        return StreamingResponse(self._stream(), media_type="text/event-stream")

    async def _stream(self) -> AsyncIterator[str]:
        while (word := await self._words.get()) is not END:
            if word == BREAK:
                raise ConnectionResetError("killed")
            yield f"data: {json.dumps({'choices': [{'index': 0, 'delta': {'content': word}}]})}\n\n"
        yield 'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\n'
        yield "data: [DONE]\n\n"


@asynccontextmanager
async def running(replica: Replica) -> AsyncIterator[str]:
    """The replica's URL."""
    sock = listen("127.0.0.1", 0)
    config = uvicorn.Config(replica.app, lifespan="off", log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve(sockets=[sock]))
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        server.should_exit = True
        await task
        sock.close()
