"""The queries that a `prometheus` trigger asks, as instant queries over `Scrapes`.

A subset of PromQL (prometheus.io/docs/prometheus/latest/querying/): selectors with label matchers, sum avg min max
count with by or without, + - * / % ^, `or`, vector, clamp_min, clamp_max. What looks back in time (rate, offset,
`[5m]`) is refused when it is parsed, so that nothing is quietly worked out wrong.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NoReturn

from inference.cluster.autoscaling.expression_nodes import ARITHMETIC
from inference.cluster.scraping import Labels, Sample, Scrapes

MAX_LENGTH = 4000
MAX_TOKENS = 300
MAX_DEPTH = 30
TOKEN = re.compile(
    r"\s*(?:(?P<span>\d+(?:ms|[smhdwy]))"
    r"|(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))"
    r"|(?P<word>[A-Za-z_:][\w:]*)"
    r"""|(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""
    r"|(?P<sign>=~|!~|!=|[-+*/%^(){},=\[\]]))",
    re.ASCII,
)
BINDS = {"or": 10, "+": 30, "-": 30, "*": 40, "/": 40, "%": 40, "^": 60}  # the documentation's order of precedence
SIGN_BINDS = 50
SCALAR = "a number"
VECTOR = "a vector"
Value = float | list[Sample]


class QueryError(Exception):
    """A query that can't be read, or that has no one answer."""


@dataclass(frozen=True, slots=True)
class Query:
    """`names` are the metrics that it looks at."""

    text: str
    names: frozenset[str]
    _work: Callable[[Scrapes, float], Value]

    def vector(self, scrapes: Scrapes, now_s: float) -> list[Sample]:
        result = self._work(scrapes, now_s)
        assert isinstance(result, list), "parse lets only vectors through"
        return result

    def value(self, scrapes: Scrapes, now_s: float) -> float | None:
        """The one element that there is; None without any. Raises QueryError for several, which KEDA takes for an
        error too ("returned multiple elements", pkg/scalers/prometheus_scaler.go). May be NaN or infinite."""
        found = self.vector(scrapes, now_s)
        if len(found) > 1:
            raise QueryError(f"{self.text} has {len(found)} results where one is wanted; put sum(…) around it")
        return found[0].value if found else None


@lru_cache(maxsize=256)
def parse(text: str) -> Query:
    """Raises QueryError for what is not in the subset, and for a query that gives a bare number: KEDA reads vectors."""
    if len(text) > MAX_LENGTH:
        raise QueryError(f"too long: at most {MAX_LENGTH} characters are read")
    parser = _Parser(text)
    work, kind = parser.expression(0)
    parser.end()
    if kind is SCALAR:
        raise QueryError("gives a bare number, which KEDA can't read; write vector(…)")
    return Query(text, frozenset(parser.names), work)


Work = Callable[[Scrapes, float], Value]
Typed = tuple[Work, str]


class _Parser:
    """Turns the text into nested functions of the scrapes and the time."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        if len(self._tokens) > MAX_TOKENS:
            raise QueryError(f"too long: at most {MAX_TOKENS} names and signs are read")
        self._at = 0
        self._depth = 0
        self.names: set[str] = set()

    def expression(self, level: int) -> Typed:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._wrong(f"nested too deep: at most {MAX_DEPTH} levels are read")
        left = self._first()
        while (sign := self._now[1]) in BINDS and self._now[0] != "text" and BINDS[sign] >= level:
            self._at += 1
            right = self.expression(BINDS[sign] + (sign != "^"))
            left = self._binary(sign, left, right)
        self._depth -= 1
        return left

    def end(self) -> None:
        if self._now[0] != "end":
            self._wrong(f"{self._now[1]!r} is not expected here; {KNOWN}")

    @property
    def _now(self) -> tuple[str, str, int]:
        return self._tokens[self._at]

    def _wrong(self, message: str) -> NoReturn:
        raise QueryError(f"column {self._now[2]}: {message}")

    def _take(self, text: str) -> bool:
        taken = self._now[1] == text and self._now[0] != "text"
        self._at += taken
        return taken

    def _need(self, text: str) -> None:
        if not self._take(text):
            self._wrong(f"{text!r} is missing")

    def _binary(self, sign: str, left: Typed, right: Typed) -> Typed:
        if sign == "or":
            if SCALAR in (left[1], right[1]):
                self._wrong("'or' stands between vectors; write vector(0) for a number")
            return _or(left[0], right[0]), VECTOR
        kind = SCALAR if left[1] is right[1] is SCALAR else VECTOR
        return _arithmetic(ARITHMETIC[sign] if sign != "%" else _remainder, left[0], right[0]), kind

    def _first(self) -> Typed:
        kind, text, _ = self._now
        if kind != "text" and text in ("-", "+"):
            self._at += 1
            work, kind = self.expression(SIGN_BINDS)
            return (_arithmetic(ARITHMETIC["*"], lambda *_: -1.0, work) if text == "-" else work), kind
        if kind == "number":
            self._at += 1
            number = float(text)
            return (lambda *_: number), SCALAR
        if self._take("("):
            inner = self.expression(0)
            self._need(")")
            return inner
        if kind != "word" or text in BINDS:
            self._wrong(f"a metric, a function or '(' is wanted; {KNOWN}")
        self._at += 1
        if text in AGGREGATES and self._now[1] in ("(", "by", "without"):
            return self._aggregate(text), VECTOR
        if self._take("("):
            return self._call(text), VECTOR
        return self._selector(text), VECTOR

    def _aggregate(self, name: str) -> Work:
        grouping = self._grouping()
        self._need("(")
        work, kind = self.expression(0)
        if kind is SCALAR:
            self._wrong(f"{name} takes a vector")
        self._need(")")
        keep, by = grouping or self._grouping() or ((), True)
        return _aggregated(AGGREGATES[name], work, frozenset(keep), by)

    def _grouping(self) -> tuple[tuple[str, ...], bool] | None:
        word = self._now[1]
        if word not in ("by", "without") or self._now[0] != "word":
            return None
        self._at += 1
        self._need("(")
        labels = []
        while self._now[0] == "word":
            labels.append(self._now[1])
            self._at += 1
            if not self._take(","):
                break
        self._need(")")
        return tuple(labels), word == "by"

    def _call(self, name: str) -> Work:
        if name not in ("vector", "clamp_min", "clamp_max"):
            self._wrong(f"{name}() is not known; {KNOWN}")
        work, kind = self.expression(0)
        if (kind is SCALAR) != (name == "vector"):
            self._wrong(f"{name} takes {'a number' if name == 'vector' else 'a vector'}")
        if name == "vector":
            self._need(")")
            return lambda scrapes, now_s: [Sample({}, _number(work(scrapes, now_s)))]
        self._need(",")
        bound, kind = self.expression(0)
        if kind is not SCALAR:
            self._wrong(f"{name} takes a vector and a number")
        self._need(")")
        return _arithmetic(max if name == "clamp_min" else min, work, bound)

    def _selector(self, name: str) -> Work:
        matchers = []
        if self._take("{"):
            while not self._take("}"):
                matchers.append(self._matcher())
                if not self._take(","):
                    self._need("}")
                    break
        if self._now[1] in ("[", "offset"):
            self._wrong("only the present is known here: no range such as [5m], no offset")
        self.names.add(name)

        def select(scrapes: Scrapes, now_s: float) -> list[Sample]:
            found = scrapes.instant(name, now_s)
            return [sample for sample in found if all(matches(sample.labels) for matches in matchers)]

        return select

    def _matcher(self) -> Callable[[Labels], bool]:
        kind, label, _ = self._now
        if kind != "word" or label == "__name__":
            self._wrong('a label is wanted, as in {model_name="mistral"}')
        self._at += 1
        sign = self._now[1]
        if sign not in ("=", "!=", "=~", "!~"):
            self._wrong("one of = != =~ !~ is wanted")
        self._at += 1
        kind, quoted, _ = self._now
        if kind != "text":
            self._wrong(f"a quoted text is wanted after {label}{sign}")
        self._at += 1
        wanted = re.sub(r"\\(.)", lambda escaped: "\n" if escaped[1] == "n" else escaped[1], quoted[1:-1])
        if sign in ("=", "!="):
            return lambda labels: (labels.get(label, "") == wanted) == (sign == "=")
        try:
            pattern = re.compile(wanted)
        except re.error as error:
            self._wrong(f"{quoted} is no regular expression: {error}")
        return lambda labels: (pattern.fullmatch(labels.get(label, "")) is not None) == (sign == "=~")


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    at, end = 0, len(text.rstrip())
    while at < end:
        found = TOKEN.match(text, at)
        if found is None:
            rest = text[at:].lstrip()
            raise QueryError(f"column {len(text) - len(rest) + 1}: {rest[:20]!r} is not known; {KNOWN}")
        kind = str(found.lastgroup)
        yield kind, found.group(kind), found.start(kind) + 1
        at = found.end()
    yield "end", "", end + 1


def _number(value: Value) -> float:
    assert isinstance(value, float), "the parser knows what is a number"
    return value


def _remainder(left: float, right: float) -> float:
    return math.fmod(left, right) if right and math.isfinite(left) else math.nan


def _arithmetic(work: Callable[[float, float], float], left: Work, right: Work) -> Work:
    """Vectors join one to one, on all labels."""

    def join(scrapes: Scrapes, now_s: float) -> Value:
        a, b = left(scrapes, now_s), right(scrapes, now_s)
        if isinstance(a, float):
            if isinstance(b, float):
                return float(work(a, b))
            return [Sample(sample.labels, work(a, sample.value)) for sample in b]
        if isinstance(b, float):
            return [Sample(sample.labels, work(sample.value, b)) for sample in a]
        others = _by_labels(b)
        return [
            Sample(one.labels, work(one.value, others[key].value))
            for key, one in _by_labels(a).items()
            if key in others
        ]

    return join


def _or(left: Work, right: Work) -> Work:
    def either(scrapes: Scrapes, now_s: float) -> list[Sample]:
        first, second = left(scrapes, now_s), right(scrapes, now_s)
        assert isinstance(first, list) and isinstance(second, list)
        there = {frozenset(sample.labels.items()) for sample in first}
        return [*first, *(sample for sample in second if frozenset(sample.labels.items()) not in there)]

    return either


def _aggregated(reduce: Callable[[list[float]], float], work: Work, labels: frozenset[str], by: bool) -> Work:
    def aggregate(scrapes: Scrapes, now_s: float) -> list[Sample]:
        groups: dict[frozenset[tuple[str, str]], list[float]] = {}
        samples = work(scrapes, now_s)
        assert isinstance(samples, list)
        for sample in samples:
            key = frozenset(item for item in sample.labels.items() if (item[0] in labels) == by)
            groups.setdefault(key, []).append(sample.value)
        return [Sample(dict(key), reduce(values)) for key, values in groups.items()]

    return aggregate


def _by_labels(samples: list[Sample]) -> dict[frozenset[tuple[str, str]], Sample]:
    found = {frozenset(sample.labels.items()): sample for sample in samples}
    if len(found) < len(samples):
        raise QueryError("several series with the same labels stand on one side of a sign; put sum(…) around them")
    return found


def _extreme(choose: Callable[[list[float]], float]) -> Callable[[list[float]], float]:
    """NaN counts only where there is nothing else."""
    return lambda values: choose([value for value in values if not math.isnan(value)] or values)


AGGREGATES: dict[str, Callable[[list[float]], float]] = {
    "sum": sum,
    "avg": lambda values: sum(values) / len(values),
    "min": _extreme(min),
    "max": _extreme(max),
    "count": lambda values: float(len(values)),
}
KNOWN = f"known here: metrics, {', '.join(AGGREGATES)}, vector, clamp_min, clamp_max, + - * / % ^ and 'or'"
