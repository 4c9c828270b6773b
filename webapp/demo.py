"""`crowdspike demo`: a whole talk on this machine. A simulated cluster, the web app, a room, and how to get in."""

from __future__ import annotations

import asyncio
import io
import socket

import segno

from webapp.app import Front
from webapp.context import now_ms
from webapp.server import new_loop, serve
from webapp.settings import Settings
from webapp.talk.model import Talk

SIMULATED = (
    "Simulated: the model and its cluster. Replicas behave like vLLM on a GPU and speak a prepared text; no node is\n"
    "bought, their prices are looked up; cold starts are {speed_up:g} times faster than in life.\n"
    "Everything else is real: the phones, the gateway, the scaling arithmetic, the scores, the log in {store}."
)
SPEED_UP = 10.0
EARLIER_MS = 12 * 3600 * 1000
REAL = "Nothing is simulated: replies come from {url}."


def run(settings: Settings, talks: list[Talk], host: str, port: int, sock: socket.socket) -> int:
    """Runs until Ctrl-C. Returns the exit status."""
    settings = _unless_set(settings, log_requests=False)
    if not settings.inference_urls:
        settings = _unless_set(settings, cluster="local", cluster_speed_up=SPEED_UP)
    if settings.cluster == "local":
        # Nothing is spent on a replica of this machine. A real one, and its key, are not for the whole network.
        settings = _unless_set(settings, api_keys="off", simulated=True)
    settings.public_url = settings.public_url or f"http://{address_for_phones(host)}:{port}"

    async def started(app: Front) -> None:
        earlier = [row.code for row in await app.parts.rooms.list() if row.created_ms > now_ms() - EARLIER_MS]
        room = await app.parts.rooms.make(talks[0])
        print(_welcome(app, room.info.code, port, earlier), flush=True)

    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(serve(settings, talks, sock, started))
    except KeyboardInterrupt:
        pass
    print("\nStopped. The room's answers are in the store.")
    return 0


def _unless_set(settings: Settings, **defaults: object) -> Settings:
    """With other defaults than those of `crowdspike serve`."""
    return settings.model_copy(update={k: v for k, v in defaults.items() if k not in settings.model_fields_set})


def address_for_phones(host: str) -> str:
    """This machine's address in its network, if it has one: no packet is sent to find it."""
    if host not in ("0.0.0.0", "::"):
        return host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))
            return sock.getsockname()[0]
        except OSError:
            return "127.0.0.1"


def _welcome(app: Front, code: str, port: int, earlier: list[str]) -> str:
    settings = app.parts.settings
    here = f"http://localhost:{port}"
    join = f"{settings.public_url}/j/{code}"
    drawing = io.StringIO()
    segno.make(join, error="l").terminal(drawing, border=1, compact=True)
    others = (
        f"  Earlier  {', '.join(earlier[:3])} can be gone on with, from the console's list of rooms\n"
        if earlier
        else ""
    )
    honest = (
        SIMULATED.format(store=settings.store, speed_up=settings.cluster_speed_up)
        if settings.simulated
        else REAL.format(url=settings.inference_url)
    )
    return (
        f"\ncrowdspike · {app.parts.talks[0].title} · room {code}\n\n"
        f"  Console  {here}/present?token={app.parts.presenter_token}\n"
        f"  Stage    {here}/stage/{code}\n"
        f"  Join     {join}   (phones on the same network)\n{others}\n"
        f"{drawing.getvalue()}\n{honest}\nCtrl-C ends everything."
    )
