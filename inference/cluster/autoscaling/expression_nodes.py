"""The parts of a formula: what each is worth, and how it reads with its numbers filled in.

Types and results as in expr-lang, which KEDA uses (github.com/expr-lang/expr, docs/language-definition.md): a division
or a power is always a float, a remainder only takes whole numbers, `round` goes away from zero.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

Type = Literal["whole", "float", "bool"]
Values = Mapping[str, float]
ITEM = "#"  # the element that a predicate looks at

LOOSEST, TIGHTEST = 0, 200
COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
# expr-lang's parser/operator/operator.go
BINARY = {
    **dict.fromkeys(("or", "||"), 10),
    **dict.fromkeys(("and", "&&"), 15),
    **dict.fromkeys(COMPARISONS, 20),
    **dict.fromkeys(("+", "-"), 30),
    **dict.fromkeys(("*", "/", "%"), 60),
    **dict.fromkeys(("**", "^"), 100),
}
UNARY = {"not": 50, "!": 50, "-": 90, "+": 90}
SIGNS = {"*": "×", "**": "^", "&&": "and", "||": "or", "-": "−"}


def amount(value: float) -> str:
    """A number for people: whole ones as such, others to one decimal place."""
    return str(int(value)) if math.isfinite(value) and value == int(value) else f"{value:.1f}"


@dataclass(frozen=True, slots=True)
class Number:
    number: float
    type: Type

    def value(self, values: Values) -> float:
        return self.number

    def show(self, values: Values, level: int) -> str:
        return f"{self.number:g}"

    def parts(self) -> Iterator[Node]:
        return iter(())


@dataclass(frozen=True, slots=True)
class Name:
    text: str
    type: Type = "float"

    def value(self, values: Values) -> float:
        return float(values[self.text])

    def show(self, values: Values, level: int) -> str:
        return f"{self.text} {amount(values[self.text])}"

    def parts(self) -> Iterator[Node]:
        return iter(())


@dataclass(frozen=True, slots=True)
class Unary:
    sign: str
    of: Node
    type: Type

    def value(self, values: Values) -> float:
        value = self.of.value(values)
        if self.type == "bool":
            return not value
        return -value if self.sign == "-" else value

    def show(self, values: Values, level: int) -> str:
        sign = "not " if self.type == "bool" else SIGNS.get(self.sign, self.sign)
        return f"{sign}{self.of.show(values, UNARY[self.sign])}"

    def parts(self) -> Iterator[Node]:
        yield self.of


@dataclass(frozen=True, slots=True)
class Binary:
    sign: str
    left: Node
    right: Node
    type: Type

    def value(self, values: Values) -> float:
        left = self.left.value(values)
        if self.sign in ("and", "&&"):
            return bool(left and self.right.value(values))
        if self.sign in ("or", "||"):
            return bool(left or self.right.value(values))
        right = self.right.value(values)
        if self.sign in COMPARISONS:
            return COMPARISONS[self.sign](left, right)
        return ARITHMETIC[self.sign](left, right)

    def show(self, values: Values, level: int) -> str:
        own = BINARY[self.sign]
        left, right = self.left, self.right
        if self.sign == "*" and isinstance(right, Number) and not isinstance(left, Number):
            left, right = right, left  # 10 × waiting 20 reads better than waiting 20 × 10
        if self.sign == "*" and isinstance(left, Number) and left.number == 1:
            return right.show(values, level)
        text = f"{left.show(values, own)} {SIGNS.get(self.sign, self.sign)} {right.show(values, own + 1)}"
        return f"({text})" if own < level else text

    def parts(self) -> Iterator[Node]:
        yield self.left
        yield self.right


@dataclass(frozen=True, slots=True)
class Condition:
    test: Node
    then: Node
    otherwise: Node
    type: Type

    def value(self, values: Values) -> float:
        return (self.then if self.test.value(values) else self.otherwise).value(values)

    def show(self, values: Values, level: int) -> str:
        branch = self.then if self.test.value(values) else self.otherwise
        text = f"{branch.show(values, LOOSEST)}, as {self.test.show(values, LOOSEST)} is "
        return f"({text}{'true' if branch is self.then else 'false'})"

    def parts(self) -> Iterator[Node]:
        yield from (self.test, self.then, self.otherwise)


@dataclass(frozen=True, slots=True)
class Call:
    name: str
    arguments: tuple[Node, ...]
    type: Type

    def value(self, values: Values) -> float:
        return FUNCTIONS[self.name]([argument.value(values) for argument in self.arguments])

    def show(self, values: Values, level: int) -> str:
        return f"{self.name}({', '.join(one.show(values, LOOSEST) for one in self.arguments)})"

    def parts(self) -> Iterator[Node]:
        return iter(self.arguments)


@dataclass(frozen=True, slots=True)
class Count:
    """`count([a, b], {# > 1})`: how many of the items the predicate holds for."""

    items: tuple[Node, ...]
    predicate: Node
    type: Type = "whole"

    def value(self, values: Values) -> float:
        return sum(bool(self.predicate.value({**values, ITEM: item.value(values)})) for item in self.items)

    def show(self, values: Values, level: int) -> str:
        return f"count of {', '.join(item.show(values, LOOSEST) for item in self.items)} = {amount(self.value(values))}"

    def parts(self) -> Iterator[Node]:
        yield from (*self.items, self.predicate)


Node = Number | Name | Unary | Binary | Condition | Call | Count


def _divide(left: float, right: float) -> float:
    """As Go does: by zero it is infinite, or no number."""
    if right == 0:
        return math.nan if left == 0 or math.isnan(left) else math.copysign(math.inf, left) * math.copysign(1, right)
    return left / right


def _power(left: float, right: float) -> float:
    try:
        return math.pow(left, right)
    except OverflowError:
        return math.inf
    except ValueError:  # 0 to a negative power, or a root of a negative number
        return math.inf if left == 0 else math.nan


def _remainder(left: float, right: float) -> float:
    if right == 0:
        raise ZeroDivisionError("a remainder of a division by 0")
    return int(math.fmod(left, right))


def _round(value: float) -> float:
    return math.copysign(math.floor(abs(value) + 0.5), value) if math.isfinite(value) else value


def _whole(value: float, to: Callable[[float], int]) -> float:
    return float(to(value)) if math.isfinite(value) else value


ARITHMETIC: dict[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": _divide,
    "%": _remainder,
    "**": _power,
    "^": _power,
}
FUNCTIONS: dict[str, Callable[[list[float]], float]] = {
    "min": min,
    "max": max,
    "abs": lambda of: abs(of[0]),
    "ceil": lambda of: _whole(of[0], math.ceil),
    "floor": lambda of: _whole(of[0], math.floor),
    "round": lambda of: _round(of[0]),
    "int": lambda of: int(of[0]) if math.isfinite(of[0]) else of[0],
    "float": lambda of: float(of[0]),
}
