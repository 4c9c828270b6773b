"""What a browser would make of a page, as far as our content security policy cares."""

from __future__ import annotations

from html.parser import HTMLParser

OURS = ("/", "#", "data:image/", "http://talk.test/")


def check_markup(html: str, where: str) -> None:
    """Nothing that the policy would block: no inline script, style or handler, nothing from another host. So text
    that had become markup would show, too."""
    page = _Page()
    page.feed(html)
    page.close()
    for tag, attributes in page.tags:
        told = f"<{tag} {attributes}> on {where}"
        assert tag not in ("style", "iframe", "object", "embed", "base"), told
        assert not [name for name in attributes if name == "style" or name.startswith("on")], told
        assert tag != "script" or {"src", "nonce"} <= attributes.keys(), told
        for name in ("src", "href", "action", "formaction"):
            assert (attributes.get(name) or "/").startswith(OURS), told


class _Page(HTMLParser):
    """All start tags with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
