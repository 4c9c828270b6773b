"""What routes share: the parts of the running program, and who and where a request is."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import parse_qs, urlsplit

from fastapi import Depends, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment
from limits import RateLimitItemPerMinute
from limits.strategies import FixedWindowRateLimiter
from prometheus_client import CollectorRegistry, Counter

from inference.cluster.cluster import Cluster
from inference.pool import Pool
from webapp.errors import (
    BadForm,
    CookieForged,
    CrossSite,
    NotJoined,
    RateLimited,
    TokenNeeded,
    WrongContentType,
)
from webapp.identity import PARTICIPANT_COOKIE, PRESENTER_COOKIE, Signer, same
from webapp.live.fleet import Fleet
from webapp.live.vitals import Vitals
from webapp.live_room import LiveRoom
from webapp.replies import Replies
from webapp.room.names import normal_code
from webapp.rooms import Rooms
from webapp.settings import Settings
from webapp.spikes.runs import Runs
from webapp.talk.model import Talk

MAX_FORM_FIELDS = 100


def now_ms() -> int:
    """The server's clock: milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


@dataclass
class App:
    """Everything that lives as long as the process. `fleet` is there when `cluster` is; `here` is the address of this
    server on its own machine, once it listens."""

    settings: Settings
    signer: Signer
    presenter_token: str
    rooms: Rooms
    spikes: Runs
    replies: Replies
    pool: Pool
    templates: Environment
    talks: list[Talk]
    registry: CollectorRegistry
    limiter: FixedWindowRateLimiter
    vitals: Vitals
    cluster: Cluster | None = None
    fleet: Fleet | None = None
    here: str = ""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.saved = Counter("crowdspike_responses_saved", "Responses acknowledged", ["kind"], registry=self.registry)
        self.refused = Counter(
            "crowdspike_requests_refused", "Requests answered with an error", ["error"], registry=self.registry
        )

    @property
    def spike_target(self) -> str:
        """Where load runs reach the rooms' own gateway; empty where that is not known."""
        return self.settings.spike_target or self.here

    def public_url(self, request: Request) -> str:
        """Where phones reach this server, without a slash at the end."""
        return (self.settings.public_url or str(request.base_url)).rstrip("/")

    def limit(self, what: str, per_minute: int, *who: str) -> None:
        """Counts one request. Raises RateLimited above `per_minute`."""
        if not self.limiter.hit(RateLimitItemPerMinute(per_minute), what, *who):
            raise RateLimited("That was too often. Wait a few seconds, then try again.")

    def page(self, request: Request, template: str, status: int = 200, talk: Talk | None = None, **names: Any):
        """A rendered page. `talk` sets its language and colour."""
        theme = {"lang": talk.language, "accent": talk.theme.accent.lstrip("#")} if talk else {}
        html = self.templates.get_template(template).render(nonce=request.state.nonce, **theme, **names)
        return HTMLResponse(html, status)


async def app_of(request: Request) -> App:  # not async, it would go through a thread for each request
    return request.app.state.crowdspike


Crowdspike = Annotated[App, Depends(app_of)]


async def live_room(code: str, app: Crowdspike) -> LiveRoom:
    return await app.rooms.get(normal_code(code) or code)


Room = Annotated[LiveRoom, Depends(live_room)]


async def visitor(request: Request, app: Crowdspike, room: Room) -> str | None:
    """The participant's id by the phone's cookie; None without one. Raises CookieForged for one that is not ours."""
    cookie = request.cookies.get(PARTICIPANT_COOKIE)
    if cookie is None:
        return None
    participant = app.signer.verify(f"phone:{room.info.code}", cookie)
    if participant is None:
        raise CookieForged("The pass that this phone sent was not made by this server. Join again.")
    if room.state.join(participant) is None:
        await room.catch_up()
    return participant if room.state.join(participant) else None


Visitor = Annotated[str | None, Depends(visitor)]


async def joined(who: Visitor) -> str:
    if who is None:
        raise NotJoined("Join the room first.")
    return who


Participant = Annotated[str, Depends(joined)]


def is_presenter(request: Request, app: App) -> bool:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return same(token.strip(), app.presenter_token)
    session = app.signer.verify("presenter", request.cookies.get(PRESENTER_COOKIE, ""))
    return session is not None and same(session, session_of(app))


def session_of(app: App) -> str:
    """What the presenter's cookie says: it ends when the token is changed."""
    return app.signer.sign("session", app.presenter_token).rpartition(".")[2]


async def presenter(request: Request, app: Crowdspike) -> None:
    if not is_presenter(request, app):
        raise TokenNeeded("Only the presenter may do this. Sign in with the presenter token.")


async def same_site(request: Request) -> None:
    """For every request that changes something: a browser must have sent it from one of our own pages."""
    site = request.headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", "none"):
        raise CrossSite("This was sent from another site's page.")
    origin = request.headers.get("origin")
    if site is None and origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise CrossSite("This was sent from another site's page.")


def wants_html(request: Request) -> bool:
    """A person with a browser, not a script or our own JavaScript."""
    return "text/html" in request.headers.get("accept", "") and "hx-request" not in request.headers


async def read_form(request: Request) -> dict[str, Any]:
    """A URL-encoded form or a JSON object: a field's name to its value, or to a list where it came several times.

    Raises WrongContentType or BadForm.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type == "application/json":
        try:
            data = json.loads(await request.body())
            json.dumps(data, ensure_ascii=False).encode()  # half a surrogate pair could not be stored
        except (ValueError, RecursionError) as error:
            raise BadForm(f"The body is not JSON: {error}"[:200]) from error
        if not isinstance(data, dict):
            raise BadForm("The body must be a JSON object.")
        return data
    if content_type != "application/x-www-form-urlencoded":
        raise WrongContentType("Send a form (application/x-www-form-urlencoded) or application/json.")
    try:
        names = parse_qs((await request.body()).decode(), keep_blank_values=True, max_num_fields=MAX_FORM_FIELDS)
        json.dumps(names, ensure_ascii=False).encode()
    except ValueError as error:
        raise BadForm(f"The form could not be read: {error}"[:200]) from error
    return {name: values if len(values) > 1 else values[0] for name, values in names.items()}
