"""Jinja's environment: autoescaped everywhere, undefined names are errors. Also what templates call: static files'
versioned addresses, QR codes, highlighted code."""

from __future__ import annotations

import hashlib
import io
from functools import lru_cache
from pathlib import Path
from typing import Any

import segno
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import TextLexer, get_lexer_by_name
from pygments.util import ClassNotFound

ROOT = Path(__file__).resolve().parent.parent
STATIC = ROOT / "static"
BROWSER_LIBRARIES = {
    "lib/htmx.js": ROOT / "node_modules/htmx.org/dist/htmx.min.js",
    "lib/hx-sse.js": ROOT / "node_modules/htmx.org/dist/ext/hx-sse.min.js",
    "lib/hx-csp.js": ROOT / "node_modules/htmx.org/dist/ext/hx-csp.min.js",
    "lib/uplot.js": ROOT / "node_modules/uplot/dist/uPlot.esm.js",
    "lib/uplot.css": ROOT / "node_modules/uplot/dist/uPlot.min.css",
}


def static_build() -> str:
    """A short hash over every static file: it stands in their addresses, so that they can be cached for ever."""
    digest = hashlib.sha256()
    for path in [*sorted(p for p in STATIC.rglob("*") if p.is_file()), *BROWSER_LIBRARIES.values()]:
        digest.update(path.name.encode())
        digest.update(path.read_bytes() if path.exists() else b"")
    return digest.hexdigest()[:10]


def environment(build: str) -> Environment:
    """Templates under `webapp/templates`. `build` is from `static_build`."""
    env = Environment(
        loader=PackageLoader("webapp"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    env.globals["static"] = lambda path: f"/static/{build}/{path}"
    env.globals["qr"] = qr
    env.filters["code"] = code
    env.filters["thousands"] = lambda number: f"{number:,}".replace(",", "\u202f")
    return env


@lru_cache(maxsize=64)
def qr(text: str) -> Markup:
    """A QR code as an inline SVG that scales to its box and takes `currentColor`-independent black on white."""
    out = io.BytesIO()
    segno.make(text, error="m").save(
        out, kind="svg", xmldecl=False, svgns=False, border=2, omitsize=True, dark="#000", light="#fff"
    )
    svg = out.getvalue().decode()
    return Markup(svg.replace("<svg ", '<svg role="img" aria-label="QR code of the join address" ', 1))


def code(block: Any) -> Markup:
    """A talk's code block as highlighted HTML; the classes are in `css/code.css`."""
    try:
        lexer = get_lexer_by_name(block.language)
    except ClassNotFound:
        lexer = TextLexer()
    return Markup(highlight(block.text, lexer, HtmlFormatter(nowrap=True)))


def theme_css(accent: str) -> str:
    """The one sheet that depends on the talk. `accent` is six hex digits."""
    red, green, blue = (int(accent[i : i + 2], 16) for i in (0, 2, 4))
    on_accent = "#fff" if _luminance(red, green, blue) < 0.179 else "#000"
    return f":root{{--accent:#{accent};--on-accent:{on_accent}}}"


def _luminance(*channels: int) -> float:
    """Relative luminance, 0 to 1 (WCAG 2.2, definition). Below 0.179 white text has the better contrast."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in channels)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
