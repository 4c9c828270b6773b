"""`crowdspike demo`: a whole talk on this machine. One simulated replica, the web app, a room, and how to get in."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import segno

from webapp.app import Front
from webapp.context import now_ms
from webapp.server import new_loop, serve
from webapp.settings import Settings
from webapp.talk.model import Talk

SIMULATED = (
    "Simulated: the model. One replica that behaves like a small vLLM server, without a GPU, speaks a prepared text.\n"
    "Everything else is real: the phones, the gateway, the scores, the log in {store}."
)
EARLIER_MS = 12 * 3600 * 1000
REAL = "Nothing is simulated: replies come from {url}."


class ReplicaFailed(Exception):
    """The simulated replica did not start."""


def run(settings: Settings, talks: list[Talk], host: str, port: int, sock: socket.socket) -> int:
    """Runs until Ctrl-C. Returns the exit status."""
    engine: subprocess.Popen[bytes] | None = None
    settings = _unless_set(settings, log_requests=False)
    with tempfile.TemporaryDirectory(prefix="crowdspike-") as folder:
        if not settings.inference_urls:
            qa = Path(folder) / "qa.json"
            qa.write_text(json.dumps([asdict(entry) for talk in talks for entry in talk.qa]), encoding="utf-8")
            engine, url = start_engine(qa)
            settings = settings.model_copy(update={"inference_url": url, "simulated": True})
            # Nothing is spent on a replica of this machine. A real one, and its key, are not for the whole network.
            settings = _unless_set(settings, api_keys="off")
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
        finally:
            if engine is not None:
                end(engine)
    print("\nStopped. The room's answers are in the store.")
    return 0


def _unless_set(settings: Settings, **defaults: object) -> Settings:
    """With other defaults than those of `crowdspike serve`."""
    return settings.model_copy(update={k: v for k, v in defaults.items() if k not in settings.model_fields_set})


def start_engine(qa: Path) -> tuple[subprocess.Popen[bytes], str]:
    """A simulated replica on a free port, and its URL. It ends by itself when this process does, however that ends."""
    command = [sys.executable, "-m", "inference.engine", "--port", "0", "--qa", str(qa), "--with-parent"]
    # A session of its own: Ctrl-C in the terminal reaches this process, which ends the replica when it is done with it.
    engine = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    assert engine.stdout is not None
    line = engine.stdout.readline().decode().split()
    if not line:
        raise ReplicaFailed(f"The simulated replica did not start (exit status {engine.wait()}).")
    return engine, line[-1]


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


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
    honest = SIMULATED.format(store=settings.store) if settings.simulated else REAL.format(url=settings.inference_url)
    return (
        f"\ncrowdspike · {app.parts.talks[0].title} · room {code}\n\n"
        f"  Console  {here}/present?token={app.parts.presenter_token}\n"
        f"  Stage    {here}/stage/{code}\n"
        f"  Join     {join}   (phones on the same network)\n{others}\n"
        f"{drawing.getvalue()}\n{honest}\nCtrl-C ends everything."
    )
