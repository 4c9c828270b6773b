"""Reads a page of ours as a parser does, for tests of what is in it."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "link", "br", "img", "rect", "path"}


class Reader(HTMLParser):
    """A page's tags, its tables' rows, its figures by their label and its text; fails on tags that do not close in
    order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.figures: dict[str, str] = {}
        self.text = ""
        self._open: list[str] = []
        self._label = ""
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "dt":
            self._label = ""

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data: str) -> None:
        self.text += data
        if "td" in self._open or "th" in self._open:
            self.rows[-1][-1] += data
        elif self._open[-1:] == ["dt"]:
            self._label = data
        elif self._open[-1:] in (["dd"], ["small"]):
            self.figures[self._label] = f"{self.figures.get(self._label, '')} {data.strip()}".strip()
