"""A page as one file that fetches and runs nothing: a template, its sheet, and a policy that lets in only that."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from loadgen.plot import clock, number
from loadgen.spike.report.words import count, dollars, percent, some, took

FOLDER = Path(__file__).parent


def rendered(template: str, **values: Any) -> str:
    """`template` is a file beside this one or in the folder above. Every value that is not Markup is escaped."""
    environment = Environment(
        loader=FileSystemLoader([FOLDER, FOLDER.parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        clock=clock, number=number, took=took, percent=percent, count=count, dollars=dollars, some=some
    )
    style = (FOLDER / "style.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return environment.get_template(template).render(style=Markup(style), digest=digest, **values)
