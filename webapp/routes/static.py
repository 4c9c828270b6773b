"""Static files from memory: our own, and the browser libraries that npm installed. Addresses carry a hash of all of
them, so that browsers and caches keep them for ever."""

from __future__ import annotations

import gzip
import mimetypes
from dataclasses import dataclass

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import Response

from webapp.templating import BROWSER_LIBRARIES, STATIC, theme_css

router = APIRouter()
_FOR_EVER = "public, max-age=31536000, immutable"


class LibrariesMissing(Exception):
    """The browser libraries are not installed; the text says how to install them."""


@dataclass(frozen=True, slots=True)
class File:
    body: bytes
    gzipped: bytes
    media_type: str


def read_files() -> dict[str, File]:
    """By path under `/static/{build}/`. Raises LibrariesMissing."""
    missing = [str(path.relative_to(path.parents[4])) for path in BROWSER_LIBRARIES.values() if not path.exists()]
    if missing:
        raise LibrariesMissing(
            f"Browser libraries are missing ({missing[0]} …). Run `npm ci`, or start with `make demo`."
        )
    own = {str(path.relative_to(STATIC)): path for path in STATIC.rglob("*") if path.is_file()}
    bodies = {name: path.read_bytes() for name, path in (own | BROWSER_LIBRARIES).items()}
    return {name: _file(name, body) for name, body in (bodies | _sheets()).items()}


def _sheets() -> dict[str, bytes]:
    """Each folder of style sheets, in the order of their names, as one: `css/stage/*.css` is `css/stage.css`."""
    folders = (path for path in (STATIC / "css").iterdir() if path.is_dir())
    return {
        f"css/{folder.name}.css": b"\n".join(sheet.read_bytes() for sheet in sorted(folder.glob("*.css")))
        for folder in folders
    }


def _file(name: str, body: bytes) -> File:
    media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return File(body, gzip.compress(body, mtime=0), media_type)


@router.get("/static/{build}/{path:path}")
async def static_file(request: Request, build: str, path: str) -> Response:
    file = request.app.state.static_files.get(path)
    if file is None:
        raise HTTPException(404)
    cache = _FOR_EVER if build == request.app.state.static_build else "public, max-age=60"
    headers = {"cache-control": cache, "vary": "accept-encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(file.gzipped, media_type=file.media_type, headers=headers | {"content-encoding": "gzip"})
    return Response(file.body, media_type=file.media_type, headers=headers)


@router.get("/theme/{accent}.css")
async def theme(accent: str) -> Response:
    """The talk's colour, as the only sheet that differs between talks."""
    if len(accent) != 6 or not all(c in "0123456789abcdefABCDEF" for c in accent):
        raise HTTPException(404)
    return Response(theme_css(accent), media_type="text/css", headers={"cache-control": _FOR_EVER})


@router.get("/favicon.ico")
async def favicon(request: Request) -> Response:
    file = request.app.state.static_files["icon.svg"]
    return Response(file.body, media_type=file.media_type, headers={"cache-control": "public, max-age=86400"})
