"""The scripted phone against a server that follows a script: what it keeps, repeats and gives up."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from loadgen.http import Client
from loadgen.phone import Habits, Phone

REPLY = b'{"saved":true,"reply":null}'


def answer(status: int, body: bytes = b"", *fields: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 %d X" % status, b"content-length: %d" % len(body), *fields, b"", body])


class Script:
    """Answers POST …/responses with the next of `answers` (None: hangs up); remembers the bodies."""

    def __init__(self, *answers: bytes | None) -> None:
        self.answers = list(answers)
        self.bodies: list[dict] = []

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                self.bodies.append(json.loads(await reader.readexactly(length)))
                reply = self.answers.pop(0)
                if reply is None:
                    return
                writer.write(reply)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def phone_against(script: Script) -> AsyncIterator[Phone]:
    server = await asyncio.start_server(script.handle, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    phone = Phone(Client([url]), "KWXM", Habits(), random.Random(1))
    try:
        yield phone
    finally:
        await phone.close()
        server.close()


async def test_an_answer_is_sent_again_under_its_id_until_it_is_stored() -> None:
    script = Script(answer(503, b"{}", b"retry-after: 0"), None, answer(503, b"{}"), answer(200, REPLY))
    async with phone_against(script) as phone:
        sent = await phone.respond("cost", {"choice": "a"})
    assert sent.acked and sent.tries == 4 and sent.waits_told == 1
    assert {body["response_id"] for body in script.bodies} == {sent.id}
    assert phone.record.faults == {"503": 2, "lost": 1}


async def test_a_final_refusal_is_not_repeated() -> None:
    script = Script(answer(409, b"{}"))
    async with phone_against(script) as phone:
        sent = await phone.respond("cost", {"choice": "a"})
    assert (sent.acked, sent.status, sent.tries) == (False, 409, 1)


async def test_a_phone_moves_to_the_next_server_when_its_own_is_gone() -> None:
    script = Script(answer(200, REPLY))
    server = await asyncio.start_server(script.handle, "127.0.0.1", 0)
    gone = await asyncio.start_server(script.handle, "127.0.0.1", 0)
    urls = [f"http://127.0.0.1:{s.sockets[0].getsockname()[1]}" for s in (gone, server)]
    gone.close()
    await gone.wait_closed()
    phone = Phone(Client(urls), "KWXM", Habits(), random.Random(1))
    sent = await phone.respond("cost", {"choice": "a"})
    assert sent.acked and sent.tries == 2
    await phone.close()
    server.close()


async def test_a_reply_that_breaks_off_is_taken_up_where_it_stopped() -> None:
    heads: list[bytes] = []
    parts: list[Callable[[], bytes]] = [
        lambda: b'id: m:3\nevent: delta\ndata: "One"\n\n',
        lambda: b'id: m:7\nevent: delta\ndata: " two"\n\nevent: done\ndata: {"failed": false}\n\n',
    ]

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"POST"):
            body = b'{"saved":true,"reply":"/r/KWXM/replies/x"}'
            writer.write(answer(200, body, b"connection: close"))
        else:
            heads.append(head)
            data = parts.pop(0)()
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(data), data))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    phone = Phone(
        Client([f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"]), "KWXM", Habits(), random.Random(1)
    )
    sent = await phone.respond("cost", {"choice": "a"})
    async with asyncio.timeout(10):
        while sent.reply_done_at is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert (sent.reply, sent.reply_failed) == ("One two", False)
    assert b"last-event-id: m:3" in heads[1] and b"last-event-id" not in heads[0]
    await phone.close()
    server.close()
