"""A scaling formula: the part of the expr language that KEDA's `scalingModifiers.formula` has a use for.

Numbers, trigger names, + - * / % ** ^, comparisons, and/or/not, `a ? b : c`, min max abs ceil floor round int float,
and `count([a, b], {# > 1})`. Precedence after expr-lang's parser/operator/operator.go; types as its checker has them,
so that what is accepted here compiles there. Nothing is ever given to Python to evaluate.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

from inference.cluster.autoscaling.expression_nodes import (
    BINARY,
    COMPARISONS,
    FUNCTIONS,
    ITEM,
    LOOSEST,
    UNARY,
    Binary,
    Call,
    Condition,
    Count,
    Name,
    Node,
    Number,
    Type,
    Unary,
)

MAX_LENGTH = 2000
MAX_TOKENS = 300
MAX_DEPTH = 40
TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
    r"|(?P<word>[A-Za-z_]\w*)"
    r"|(?P<sign>\*\*|==|!=|<=|>=|&&|\|\||[-+*/%^<>!?:(),\[\]{}#]))",
    re.ASCII,
)
WORDS = frozenset(("and", "or", "not", "true", "false", "nil", "in", "let"))


class ExpressionError(Exception):
    """What is wrong with a formula; `column` counts from 1, and is 0 where its value is the matter."""

    def __init__(self, column: int, message: str) -> None:
        super().__init__(f"column {column}: {message}" if column else message)
        self.column = column


@dataclass(frozen=True)
class Expression:
    text: str
    node: Node

    @cached_property
    def names(self) -> frozenset[str]:
        """The triggers that it needs."""
        return frozenset(node.text for node in _walk(self.node) if isinstance(node, Name) and node.text != ITEM)

    def value(self, values: Mapping[str, float]) -> float:
        """Its value; may be infinite or NaN, as a division by zero is in Go. Raises ExpressionError for a name that
        has no value and for a whole number's remainder by zero."""
        if missing := self.names - values.keys():
            raise ExpressionError(0, f"{', '.join(sorted(missing))} has no value")
        try:
            return float(self.node.value(values))
        except (ZeroDivisionError, OverflowError) as error:
            raise ExpressionError(0, str(error)) from None

    def explain(self, values: Mapping[str, float]) -> str:
        """The formula with its numbers, for people: `running 32 + 10 × waiting 20`."""
        return self.node.show(values, LOOSEST)


@lru_cache(maxsize=256)
def parse(text: str) -> Expression:
    """Raises ExpressionError where KEDA's compiler would refuse it, or it is outside what is known here."""
    if len(text) > MAX_LENGTH:
        raise ExpressionError(MAX_LENGTH, f"too long: at most {MAX_LENGTH} characters are read")
    parser = _Parser(text)
    node = parser.expression(LOOSEST)
    parser.end()
    if node.type == "bool":
        raise ExpressionError(1, "is true or false; a formula gives a number, for instance `… ? 10 : 0`")
    return Expression(text, node)


def _walk(node: Node) -> Iterator[Node]:
    yield node
    for part in node.parts():
        yield from _walk(part)


@dataclass(frozen=True, slots=True)
class _Token:
    column: int
    kind: str
    text: str


class _Parser:
    """By precedence climbing. The limits on tokens and nesting bound the recursion of all that walks a tree."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        if len(self._tokens) > MAX_TOKENS:
            column = self._tokens[MAX_TOKENS].column
            raise ExpressionError(column, f"too long: at most {MAX_TOKENS} numbers, names and signs are read")
        self._at = 0
        self._depth = 0
        self._in_predicate = False

    def expression(self, level: int) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ExpressionError(self._now.column, f"nested too deep: at most {MAX_DEPTH} levels are read")
        left = self._first()
        while (sign := self._now).text in BINARY and BINARY[sign.text] >= level:
            self._at += 1
            binds = BINARY[sign.text]
            right = self.expression(binds if sign.text in ("**", "^") else binds + 1)
            left = Binary(sign.text, left, right, _binary_type(sign, left, right))
        column = self._now.column
        if level == LOOSEST and self._take("?"):
            left = self._condition(left, column)
        self._depth -= 1
        return left

    def end(self) -> None:
        if self._now.kind != "end":
            raise ExpressionError(self._now.column, f"{self._now.text!r} is not expected here")

    @property
    def _now(self) -> _Token:
        return self._tokens[self._at]

    def _take(self, sign: str) -> bool:
        taken = self._now.kind == "sign" and self._now.text == sign
        self._at += taken
        return taken

    def _need(self, sign: str) -> None:
        if not self._take(sign):
            raise ExpressionError(self._now.column, f"{sign!r} is missing")

    def _condition(self, test: Node, column: int) -> Node:
        _expect(test, "bool", column, "what stands before '?'")
        then = self.expression(LOOSEST)
        self._need(":")
        otherwise = self.expression(LOOSEST)
        if (then.type == "bool") != (otherwise.type == "bool"):
            raise ExpressionError(column, "both sides of ':' must be numbers, or both true or false")
        return Condition(test, then, otherwise, then.type if then.type == otherwise.type else "float")

    def _first(self) -> Node:
        token = self._now
        if token.text in UNARY:
            self._at += 1
            of = self.expression(UNARY[token.text])
            logical = token.text in ("not", "!")
            _expect(of, "bool" if logical else "number", token.column, f"what follows {token.text!r}")
            return Unary(token.text, of, of.type)
        self._at += token.kind != "end"
        if token.kind == "number":
            whole = token.text.isdigit()
            return Number(int(token.text) if whole else float(token.text), "whole" if whole else "float")
        if token.text == "(" and token.kind == "sign":
            inner = self.expression(LOOSEST)
            self._need(")")
            return inner
        if token.text == ITEM and self._in_predicate:
            return Name(ITEM)
        if token.kind == "word" and token.text not in WORDS:
            return self._call(token) if self._take("(") else Name(token.text)
        what = "the formula ends here" if token.kind == "end" else f"{token.text!r} is not expected here"
        raise ExpressionError(token.column, f"{what}; a number, a trigger's name or '(' is wanted")

    def _call(self, name: _Token) -> Node:
        if name.text == "count":
            return self._count()
        if name.text not in FUNCTIONS:
            raise ExpressionError(name.column, f"no function {name.text!r}; known: {', '.join(FUNCTIONS)}, count")
        arguments = self._list(")")
        several = name.text in ("min", "max")
        if not arguments or (len(arguments) > 1 and not several):
            raise ExpressionError(name.column, f"{name.text} takes {'numbers' if several else 'one number'}")
        for argument in arguments:
            _expect(argument, "number", name.column, f"what {name.text} takes")
        types = {argument.type for argument in arguments}
        keeps = name.text in ("min", "max", "abs") and types == {"whole"}
        return Call(name.text, arguments, "whole" if keeps or name.text == "int" else "float")

    def _count(self) -> Node:
        self._need("[")
        items = self._list("]")
        self._need(",")
        braces = self._take("{")
        column, outer = self._now.column, self._in_predicate
        self._in_predicate = True
        predicate = self.expression(LOOSEST)
        self._in_predicate = outer
        if braces:
            self._need("}")
        self._need(")")
        _expect(predicate, "bool", column, "what count asks of each")
        return Count(items, predicate)

    def _list(self, end: str) -> tuple[Node, ...]:
        if self._take(end):
            return ()
        found = [self.expression(LOOSEST)]
        while self._take(","):
            found.append(self.expression(LOOSEST))
        self._need(end)
        return tuple(found)


def _tokens(text: str) -> Iterator[_Token]:
    at, end = 0, len(text.rstrip())
    while at < end:
        found = TOKEN.match(text, at)
        if found is None:
            at += len(text[at:]) - len(text[at:].lstrip())
            raise ExpressionError(at + 1, f"{text[at]!r} is not known in a formula")
        kind = str(found.lastgroup)
        yield _Token(found.start(kind) + 1, kind, found.group(kind))
        at = found.end()
    yield _Token(end + 1, "end", "")


def _expect(node: Node, wanted: str, column: int, what: str) -> None:
    if (node.type == "bool") != (wanted == "bool"):
        raise ExpressionError(column, f"{what} must be {'true or false' if wanted == 'bool' else 'a number'}")


def _binary_type(sign: _Token, left: Node, right: Node) -> Type:
    text, whole = sign.text, left.type == right.type == "whole"
    if text in ("==", "!=") and left.type == right.type == "bool":
        return "bool"
    wanted = "bool" if text in ("and", "or", "&&", "||") else "number"
    for node in (left, right):
        _expect(node, wanted, sign.column, f"each side of {text!r}")
    if text == "%" and not whole:
        raise ExpressionError(sign.column, "'%' takes whole numbers only, and triggers are not: write int(name) % 2")
    if wanted == "bool" or text in COMPARISONS:
        return "bool"
    return "whole" if whole and text in ("+", "-", "*", "%") else "float"
