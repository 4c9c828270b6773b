"""What Prometheus holds of its targets' last scrapes, as far as an instant query at the present can see it.

Staleness after prometheus.io/docs/prometheus/latest/querying/basics/#staleness: a series that a scrape no longer has,
all of a scrape that failed, and all of a target that is gone, vanish at once; without any news a sample counts for five
minutes. Only the last scrape is kept, so a question about the past has no answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

LOOKBACK_S = 300.0
LINE = re.compile(r'([A-Za-z_:][\w:]*)\s*(\{(?:[^"}]|"(?:[^"\\]|\\.)*")*\})?\s+([^\s#]+)(?:\s|$)', re.ASCII)
LABEL = re.compile(r'\s*([A-Za-z_]\w*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*(?:,|$)', re.ASCII)
ESCAPED = re.compile(r"\\(.)")

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Sample:
    """One element of an instant vector, without the metric's name."""

    labels: Labels
    value: float


@dataclass(frozen=True, slots=True)
class _Scrape:
    at_s: float
    series: Mapping[str, tuple[Sample, ...]]


class Malformed(ValueError):
    """Text that is not Prometheus' exposition format."""


class Scrapes:
    """The last scrape of each target. `wanted` are the metrics worth keeping, all without it; `up` is always there."""

    def __init__(self, wanted: Iterable[str] | None = None) -> None:
        self._wanted = None if wanted is None else frozenset(wanted)
        self._scrapes: dict[str, _Scrape] = {}

    def put(self, target: str, at_s: float, text: bytes | str | None, labels: Labels | None = None) -> bool:
        """What `target` answered at `at_s`, None where it did not; whether it is up. Text that can't be read is a
        scrape that failed."""
        labels = {"instance": target, **(labels or {})}
        found: dict[str, list[Sample]] = {}
        up = text is not None
        if text is not None:
            try:
                for name, exposed, value in read(text, self._wanted):
                    found.setdefault(name, []).append(Sample(_joined(exposed, labels), value))
            except Malformed:
                found, up = {}, False
        self._keep(target, at_s, {name: tuple(samples) for name, samples in found.items()}, labels, up)
        return up

    def put_values(self, target: str, at_s: float, values: Mapping[str, float], labels: Labels | None = None) -> None:
        """As `put`, for a target that is not scraped but simulated."""
        labels = {"instance": target, **(labels or {})}
        series = {name: (Sample(labels, float(value)),) for name, value in values.items()}
        self._keep(target, at_s, series, labels, up=True)

    def forget(self, target: str, at_s: float) -> None:
        """`target` is gone from what is scraped, and its series with it."""
        self._scrapes.pop(target, None)

    def instant(self, name: str, now_s: float) -> Iterator[Sample]:
        """The samples of a metric that count at `now_s`."""
        for scrape in self._scrapes.values():
            if scrape.at_s <= now_s < scrape.at_s + LOOKBACK_S:
                yield from scrape.series.get(name, ())

    def _keep(self, target: str, at_s: float, series: dict[str, tuple[Sample, ...]], labels: Labels, up: bool) -> None:
        series["up"] = (Sample(labels, float(up)),)
        self._scrapes[target] = _Scrape(at_s, series)


def read(text: bytes | str, wanted: frozenset[str] | None = None) -> Iterator[tuple[str, Labels, float]]:
    """Name, labels and value of each sample, or only of the `wanted` metrics: other lines are not looked at. Raises
    Malformed."""
    if isinstance(text, bytes):
        text = text.decode(errors="replace")
    for line in text.splitlines() if wanted is None else _lines(text, wanted):
        if not line or line[0] == "#" or line.isspace():
            continue
        found = LINE.match(line)
        if found is None:
            raise Malformed(f"not a sample: {line[:80]!r}")
        name, labels, value = found.groups()
        try:
            yield name, _labels(labels) if labels else {}, float(value)
        except ValueError:
            raise Malformed(f"not a number: {line[:80]!r}") from None


def _lines(text: str, wanted: frozenset[str]) -> Iterator[str]:
    """The lines of these metrics. A replica exports some hundred lines every few seconds; two or three are wanted."""
    for name in wanted:
        at = text.find(name)
        while at >= 0:
            after = at + len(name)
            if (at == 0 or text[at - 1] == "\n") and text[after : after + 1] in ("{", " ", "\t"):
                end = text.find("\n", after)
                yield text[at:] if end < 0 else text[at:end]
            at = text.find(name, after)


@lru_cache(maxsize=4096)
def _labels(text: str) -> Labels:
    """Of `{a="b",c="d"}`. Kept, because every scrape has the same ones."""
    inside, at, found = text[1:-1].strip(), 0, {}
    while at < len(inside):
        label = LABEL.match(inside, at)
        if label is None:
            raise Malformed(f"not labels: {text[:80]!r}")
        found[label[1]] = ESCAPED.sub(lambda escaped: "\n" if escaped[1] == "n" else escaped[1], label[2])
        at = label.end()
    return found


def _joined(exposed: Labels, target: Labels) -> Labels:
    """A label that both have keeps the target's value, and the exposed one as `exported_…` (honor_labels: false)."""
    if exposed.keys().isdisjoint(target):
        return {**exposed, **target}
    return {**{f"exported_{name}" if name in target else name: value for name, value in exposed.items()}, **target}
