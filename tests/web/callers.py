"""Who calls the program in the tests: presenters, phones and strangers, straight into the application or over TCP."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import uvicorn

from inference.cluster.cluster import Cluster
from tests.sample_room import TALK
from webapp.app import Front, running_app
from webapp.server import Server, listen
from webapp.settings import Settings
from webapp.talk.model import Talk

HTML = {"accept": "text/html"}
_numbers = itertools.count(1)


class Web:
    """The program. Clients that it makes are closed with it."""

    def __init__(self, front: Front) -> None:
        self.front = front
        self.token = front.parts.presenter_token
        self._clients: list[httpx.AsyncClient] = []
        self.presenter = self.client(authorization=f"Bearer {self.token}")

    def client(self, **headers: str) -> httpx.AsyncClient:
        """A client with a cookie jar of its own. A server error comes as a response, as it would over TCP."""
        transport = httpx.ASGITransport(self.front, raise_app_exceptions=False)
        client = httpx.AsyncClient(transport=transport, base_url="http://talk.test", headers=headers)
        self._clients.append(client)
        return client

    async def room(self) -> str:
        """The code of a new room of the first talk."""
        response = await self.presenter.post("/present/rooms", json={"talk": "0"})
        assert response.status_code == 201, response.text
        return response.json()["code"]

    async def control(self, code: str, action: str, **details) -> httpx.Response:
        response = await self.presenter.post(f"/present/{code}/control", json={"action": action, **details})
        assert response.status_code == 200, response.text
        return response

    async def start(self, code: str, activity: str) -> None:
        await self.control(code, "goto", activity=activity)
        await self.control(code, "open")

    async def join(self, code: str) -> Phone:
        phone = Phone(self.client(), code)
        response = await phone.post("join", {})
        assert response.status_code == 201, response.text
        return phone

    async def questions(self, code: str) -> list[dict]:
        return (await self.presenter.get(f"/api/rooms/{code}/questions")).json()["questions"]

    async def export(self, code: str, format: str) -> str:
        response = await self.presenter.get(f"/api/rooms/{code}/export?format={format}")
        assert response.status_code == 200
        return response.text

    async def close(self) -> None:
        for client in self._clients:
            await client.aclose()


class Phone:
    def __init__(self, http: httpx.AsyncClient, code: str) -> None:
        self.http = http
        self.code = code

    async def get(self, path: str, **options) -> httpx.Response:
        return await self.http.get(f"/r/{self.code}/{path}".rstrip("/"), **options)

    async def post(self, path: str, body: dict, **options) -> httpx.Response:
        headers = {"content-type": "application/json"} | options.pop("headers", {})
        content = json.dumps(body)  # unlike httpx, which cannot send half a surrogate pair
        return await self.http.post(f"/r/{self.code}/{path}", content=content, headers=headers, **options)

    async def send(self, activity: str, id: str | None = None, **body) -> httpx.Response:
        """A response to an activity, under a new id if none is given."""
        response_id = id or f"response-{next(_numbers)}"
        return await self.post("responses", {"response_id": response_id, "activity_id": activity, **body})

    @property
    def participant(self) -> str:
        return self.http.cookies["crowdspike_phone"].partition(".")[0]


@asynccontextmanager
async def web_on(
    store: Path, talks: list[Talk] | None = None, cluster: Cluster | None = None, **settings
) -> AsyncIterator[Web]:
    """The program with its log in the folder `store`, whatever the environment says."""
    values = {"inference_url": "", "secret": "s" * 32, "presenter_token": "presenter-token", **settings}
    async with running_app(Settings(store=str(store), **values), talks or [TALK], cluster) as front:
        web = Web(front)
        yield web
        await web.close()


@asynccontextmanager
async def listening(web: Web) -> AsyncIterator[str]:
    """The URL of the program under its own server, for what only a real connection shows."""
    sock = listen("127.0.0.1", 0)
    config = uvicorn.Config(web.front, lifespan="off", log_config=None, timeout_graceful_shutdown=1)
    server = Server(config)
    task = asyncio.create_task(server._serve(sockets=[sock]))
    await server.bound.wait()
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        sock.close()
