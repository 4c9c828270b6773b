"""A small API server on loopback that speaks list and watch over objects that the test puts there, and fails on demand.

It keeps one counter of versions and a history, as etcd does; what has been compacted away is gone (410). A watch
answers in chunks, one line an event, and ends after `timeoutSeconds`.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

PODS = "/api/v1/namespaces/talk/pods"
EVENTS = "/api/v1/namespaces/talk/events"
NODE_EVENTS = "/api/v1/namespaces/default/events"
NODES = "/api/v1/nodes"
CLAIMS = "/apis/karpenter.sh/v1/nodeclaims"
HPAS = "/apis/autoscaling/v2/namespaces/talk/horizontalpodautoscalers"
SCALED_OBJECTS = "/apis/keda.sh/v1alpha1/namespaces/talk/scaledobjects"
ALL = (PODS, EVENTS, NODE_EVENTS, NODES, CLAIMS, HPAS, SCALED_OBJECTS)


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_watch(self) -> bool:
        return self.query.get("watch") == "true"


@dataclass(eq=False, slots=True)
class Stream:
    """An open watch."""

    path: str
    writer: asyncio.StreamWriter
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class KubeServer:
    """`served` are the collections that exist; `refused` and `failing` those that answer 403 and 500. While `silent`,
    what is asked for is read and never answered. `tokens` are the valid bearer tokens, any if empty."""

    def __init__(self) -> None:
        self.served = set(ALL)
        self.refused: set[str] = set()
        self.refused_verbs: set[str] = set()
        self.failing: set[str] = set()
        self.tokens: set[str] = set()
        self.silent = False
        self.page = 500
        self.requests: list[Request] = []
        self.version = 1000
        self.url = ""
        self._objects: dict[str, dict[str, dict[str, Any]]] = {path: {} for path in ALL}
        self._history: list[tuple[int, str, str, dict[str, Any]]] = []
        self._compacted = self.version
        self._streams: set[Stream] = set()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._port = 0

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"

    async def go_away(self) -> None:
        """Nothing listens any more, and all connections are cut."""
        assert self._server is not None
        self._server.close()
        self.drop()
        for writer in list(self._connections):
            writer.transport.abort()
        await asyncio.gather(*self._serving)
        await self._server.wait_closed()

    def put(self, path: str, it: Mapping[str, Any]) -> None:
        """Make an object, or replace the one of that name."""
        new = copy.deepcopy(dict(it))
        name = new["metadata"]["name"]
        kind = "MODIFIED" if name in self._objects[path] else "ADDED"
        self._note(path, kind, new)
        self._objects[path][name] = new

    def remove(self, path: str, name: str) -> None:
        self._note(path, "DELETED", self._objects[path].pop(name))

    def count(self, path: str) -> int:
        return len(self._objects[path])

    def lists(self, path: str) -> int:
        return sum(request.path == path and not request.is_watch for request in self.requests)

    def watches(self, path: str) -> list[Request]:
        return [request for request in self.requests if request.path == path and request.is_watch]

    def is_watched(self, path: str) -> bool:
        return any(stream.path == path for stream in self._streams)

    def bookmark(self, path: str) -> None:
        """Tell the watchers of a collection how far they are, though nothing of theirs has changed."""
        self.version += 1
        it = {"kind": "Pod", "apiVersion": "v1", "metadata": {"resourceVersion": str(self.version)}}
        self._send(path, {"type": "BOOKMARK", "object": it})

    def compact(self) -> None:
        """Forget all history: a watch from before now is told 410."""
        self._history.clear()
        self.version += 1
        self._compacted = self.version

    def restore(self) -> None:
        """Go back to a state with other, lower versions, as after a restore from a backup."""
        self.version = 10
        self._history.clear()
        self._compacted = 10
        self.drop()

    def expire(self, path: str) -> None:
        """End the open watches with the 410 that comes within a stream."""
        self._send(path, {"type": "ERROR", "object": _status(410, "Expired", "too old resource version")})

    def drop(self, path: str | None = None, midway: bool = False) -> None:
        """Cut the open watches, `midway` in a line."""
        for stream in [one for one in self._streams if path in (None, one.path)]:
            if midway:
                stream.writer.write(_chunk(b'{"type":"MODIFIED","object":{"metadata":{"na'))
            stream.writer.close()
            stream.ended.set()

    def _note(self, path: str, kind: str, it: dict[str, Any]) -> None:
        self.version += 1
        it["metadata"]["resourceVersion"] = str(self.version)
        event = copy.deepcopy(it)
        self._history.append((self.version, path, kind, event))
        self._send(path, {"type": kind, "object": event})

    def _send(self, path: str, event: Mapping[str, Any]) -> None:
        for stream in self._streams:
            if stream.path == path:
                _write_event(stream.writer, event)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        self._connections.add(writer)
        try:
            while True:
                request = await _read(reader)
                self.requests.append(request)
                if self.silent:
                    await reader.read()
                    return
                await self._answer(request, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._connections.discard(writer)
            writer.close()

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        collection, _, name = request.path, "", ""
        if collection not in ALL:
            collection, _, name = request.path.rpartition("/")
        if self.tokens and request.headers.get("authorization", "").removeprefix("Bearer ") not in self.tokens:
            _write(writer, 401, _status(401, "Unauthorized", "Unauthorized"))
        elif request.path.rstrip("/") == "/version":
            _write(writer, 200, {"major": "1", "minor": "35", "gitVersion": "v1.35.0-eks-0000000"})
        elif collection not in self.served:
            _write(writer, 404, _status(404, "NotFound", "the server could not find the requested resource"))
        elif collection in self.refused or request.method in self.refused_verbs:
            plural = collection.rpartition("/")[2]
            verb = "watch" if request.is_watch else {"GET": "list"}.get(request.method, request.method.lower())
            message = f'{plural} is forbidden: User "system:serviceaccount:talk:crowdspike" cannot {verb} it'
            _write(writer, 403, _status(403, "Forbidden", message))
        elif collection in self.failing:
            _write(writer, 500, _status(500, "InternalError", "etcdserver: leader changed"))
        elif request.is_watch:
            await self._watch(request, writer)
        elif request.method == "GET":
            self._list(collection, request, writer)
        else:
            self._change(request, collection, unquote(name), writer)
        await writer.drain()

    def _list(self, path: str, request: Request, writer: asyncio.StreamWriter) -> None:
        items = [it for it in self._objects[path].values() if _selected(it, request.query)]
        begin = int(request.query.get("continue", "0"))
        end = begin + min(self.page, int(request.query.get("limit", self.page)))
        metadata = {"resourceVersion": str(self.version), **({"continue": str(end)} if end < len(items) else {})}
        _write(writer, 200, {"kind": "List", "metadata": metadata, "items": items[begin:end]})

    async def _watch(self, request: Request, writer: asyncio.StreamWriter) -> None:
        since = int(request.query["resourceVersion"])
        if since > self.version:
            details = {"causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]}
            message = f"Too large resource version: {since}, current: {self.version}"
            _write(writer, 504, {**_status(504, "Timeout", message), "details": details})
            return
        if since < self._compacted:
            _write(writer, 410, _status(410, "Expired", f"too old resource version: {since} ({self._compacted})"))
            return
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
        for version, path, kind, it in self._history:
            if path == request.path and version > since:
                _write_event(writer, {"type": kind, "object": it})
        stream = Stream(request.path, writer)
        self._streams.add(stream)
        try:
            async with asyncio.timeout(float(request.query["timeoutSeconds"])):
                await stream.ended.wait()
        except TimeoutError:
            writer.write(b"0\r\n\r\n")
        finally:
            self._streams.discard(stream)

    def _change(self, request: Request, path: str, name: str, writer: asyncio.StreamWriter) -> None:
        it = self._objects[path].get(name)
        if it is None:
            _write(writer, 404, _status(404, "NotFound", f'"{name}" not found'))
        elif request.method == "DELETE":
            self.remove(path, name)
            _write(writer, 200, {"kind": "Status", "status": "Success"})
        else:
            assert request.headers["content-type"] == "application/merge-patch+json"
            self.put(path, merged(it, json.loads(request.body)))
            _write(writer, 200, self._objects[path][name])


def merged(it: Any, change: Any) -> Any:
    """RFC 7386."""
    if not isinstance(change, dict):
        return change
    result = dict(it) if isinstance(it, dict) else {}
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


@asynccontextmanager
async def kube_server() -> AsyncIterator[KubeServer]:
    server = KubeServer()
    await server.open()
    try:
        yield server
    finally:
        await server.go_away()


def _selected(it: Mapping[str, Any], query: Mapping[str, str]) -> bool:
    labels = it["metadata"].get("labels", {})
    fields = {"type": it.get("type")}
    return all(
        values.get(key) == value
        for text, values in ((query.get("labelSelector"), labels), (query.get("fieldSelector"), fields))
        for key, _, value in (part.partition("=") for part in (text or "").split(",") if part)
    )


def _status(code: int, reason: str, message: str) -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = head[0].split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    parts = urlsplit(target)
    query = {key: values[0] for key, values in parse_qs(parts.query).items()}
    return Request(method, parts.path, query, headers, body)


def _write(writer: asyncio.StreamWriter, code: int, body: Mapping[str, Any]) -> None:
    data = json.dumps(body, ensure_ascii=False).encode()
    writer.write(b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % (code, len(data)))
    writer.write(data)


def _write_event(writer: asyncio.StreamWriter, event: Mapping[str, Any]) -> None:
    """In two chunks, as nothing promises that a chunk is a line."""
    line = json.dumps(event, ensure_ascii=False).encode() + b"\n"
    writer.write(_chunk(line[:20]) + _chunk(line[20:]))


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)
