"""Files that a talk is read from: its own text, pictures beside it, a text of answers. Bounded, and never outside of
the talk's folder."""

from __future__ import annotations

import base64
from pathlib import Path

from webapp.talk.problems import Malformed, Unreadable

MAX_TEXT_BYTES = 1024 * 1024
MAX_PICTURE_BYTES = 512 * 1024
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def read_text(path: Path) -> str:
    """The text of a file of at most 1 MiB. Raises Unreadable, or Malformed where the bytes are not UTF-8."""
    return decode(_read(path, MAX_TEXT_BYTES, "1 MiB"))


def decode(data: bytes) -> str:
    """UTF-8 to text, without a byte order mark. Raises Malformed at the first byte that is not UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", errors="replace")
        column = len(before) - (before.rfind("\n") + 1) + 1
        byte = error.object[error.start]
        raise Malformed(
            before.count("\n") + 1, column, f"byte 0x{byte:02x} is not UTF-8; save the file as UTF-8"
        ) from None


def beside(base: Path | None, name: str) -> Path:
    """The path of the file `name` in the folder `base` or below it. Raises Unreadable for any other place."""
    if base is None:
        raise Unreadable("names a file, but this talk was not read from a folder; leave it out")
    try:
        path = (base / name).resolve()
        inside = path.is_relative_to(base.resolve())
    except (OSError, RuntimeError, ValueError):  # such as a loop of links
        raise Unreadable("is no path; give one relative to the talk's file, such as pictures/queue.png") from None
    if not inside:
        raise Unreadable("is outside of the talk's folder; put the file beside the talk")
    return path


def picture_src(path: Path) -> str:
    """A picture as a data URI. Raises Unreadable."""
    if path.suffix.lower() == ".svg":
        raise Unreadable("is an SVG, which may carry scripts; give a png, jpg or webp")
    if path.suffix.lower() not in SUFFIXES:
        raise Unreadable("is no picture that we show; give a png, jpg or webp")
    data = _read(path, MAX_PICTURE_BYTES, "512 KiB")
    kind = _picture_kind(data)
    if kind is None:
        raise Unreadable("has a picture's name, but not its content; give a real png, jpg or webp")
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _picture_kind(data: bytes) -> str | None:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return None


def _read(path: Path, most: int, most_in_words: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except FileNotFoundError:
        raise Unreadable("there is no such file") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a path"
        raise Unreadable(f"cannot be read: {reason}") from None
    if len(data) > most:
        raise Unreadable(f"is too large; give at most {most_in_words}")
    return data
