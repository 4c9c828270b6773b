"""The probe beside k6, which sees headers but no tokens: a request a second whose stream our own reader reads.

Its requests are of the same work and bear the same source, so they are in the target's load too; the points say
`by="probe"`, and the figures show them apart from the tool's.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from urllib.parse import urlsplit

from loadgen.spike.plan import Plan
from loadgen.spike.point import Point, Report, Sent
from loadgen.spike.reply import Reply, request

BY = "probe"
MAX_PER_S = 1.0
MIN_PER_S = 0.5
SHARE = 0.05
"""Of the plan's peak, so that the probe doesn't shape what it measures. At least `MIN_PER_S` go out all the same."""


def rate_per_s(plan: Plan) -> float:
    """How often the probe asks. In a closed loop, whose peak are users, `MAX_PER_S`."""
    return MAX_PER_S if plan.loop == "closed" else max(MIN_PER_S, min(MAX_PER_S, SHARE * plan.peak))


class Probe:
    """Says Sent and Point to `said`, in Unix time; a request that got no connection is a point with an error too. What
    is under way at `stop` is given up and has no point. `target` is `http(s)://host[:port]`; `model` must be named.

    It asks once in each `every_s`, at a moment that the plan's seed draws: at an even pace it would meet a steady load
    always at the same distance from the tool's last request. `evenly` is for a probe that is alone. The work is taken
    from its end: what the tool has sent before would be in the server's prefix cache."""

    def __init__(
        self,
        plan: Plan,
        target: str,
        model: str,
        said: Callable[[Report], None],
        *,
        api_key: str = "",
        insecure: bool = False,
        every_s: float = 0.0,
        evenly: bool = False,
    ) -> None:
        parts = urlsplit(target)
        assert parts.hostname, f"not a server's address: {target}"
        self._plan = plan
        self._host = parts.netloc
        self._address = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = tls(insecure) if parts.scheme == "https" else None
        self._model = model
        self._said = said
        self._api_key = api_key
        self._every_s = every_s or 1 / rate_per_s(plan)
        self._evenly = evenly
        self._schedule: asyncio.Task[None] | None = None

    def start(self, began_s: float) -> None:
        """Asks from `began_s` (Unix time of the run's moment 0) until the plan's last arrival."""
        self._schedule = asyncio.create_task(self._keep(began_s))

    async def stop(self) -> None:
        """A second time does no harm. Raises what went wrong in the probe itself, or in what it told."""
        if self._schedule is not None:
            self._schedule.cancel()
            with suppress(asyncio.CancelledError):
                await self._schedule

    async def _keep(self, began_s: float) -> None:
        moments = random.Random(self._plan.seed)
        async with asyncio.TaskGroup() as under_way:
            for n in count():
                left_s = self._plan.duration_s - n * self._every_s
                if left_s <= 0:
                    break
                share = 0.0 if self._evenly else moments.random()
                due_s = began_s + n * self._every_s + share * min(self._every_s, left_s)
                await asyncio.sleep(max(0.0, due_s - time.time()))
                under_way.create_task(self._ask(n, due_s))

    async def _ask(self, n: int, due_s: float) -> None:
        asked = request(
            self._host,
            self._plan.model or self._model,
            self._plan.prompt(-1 - n),
            source=self._plan.source,
            api_key=self._api_key,
            ignore_eos=self._plan.ignore_eos,
            keep_alive=False,
        )
        sent_s = time.time()
        self._said(Sent(n, sent_s))
        reader = _Reader(asked)
        try:
            async with asyncio.timeout(self._plan.timeout_s):
                await asyncio.get_running_loop().create_connection(lambda: reader, *self._address, ssl=self._tls)
                await reader.over.wait()
        except TimeoutError:
            reader.reply.fail(too_late(self._plan.timeout_s), time.time())
        except OSError as error:
            reader.reply.fail(no_connection(error), time.time())
        finally:
            reader.close()
        self._said(self._point(reader.reply, n, due_s, sent_s))

    def _point(self, reply: Reply, n: int, due_s: float, sent_s: float) -> Point:
        return reply.point(n, BY, due_s=None if self._plan.loop == "closed" else due_s, sent_s=sent_s)


class _Reader(asyncio.Protocol):
    """Sends its request when connected and reads the reply; `over` is set at the end of it."""

    def __init__(self, asked: bytes) -> None:
        self.reply = Reply()
        self.over = asyncio.Event()
        self._asked = asked
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        transport.write(self._asked)

    def data_received(self, data: bytes) -> None:
        self.reply.feed(data, time.time())
        if self.reply.ended_s is not None:
            self.over.set()

    def connection_lost(self, error: Exception | None) -> None:
        if isinstance(error, OSError):
            self.reply.fail(no_connection(error), time.time())
        else:
            self.reply.eof(time.time())
        self.over.set()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def too_late(timeout_s: float) -> str:
    return f"no answer within {timeout_s:g} s"


def tls(insecure: bool) -> ssl.SSLContext:
    """As browsers have it; `insecure` takes any certificate."""
    context = ssl.create_default_context()
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def no_connection(error: OSError) -> str:
    """What to call it: the same for all requests that failed alike, so without addresses and numbers."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {(error.reason or 'failed').lower().replace('_', ' ')}"
    if isinstance(error, socket.gaierror):
        return "no such host"
    return os.strerror(error.errno).lower() if error.errno else "no connection"
