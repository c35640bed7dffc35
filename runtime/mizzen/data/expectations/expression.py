"""What must hold across columns, written in a subset of CEL and compiled to a polars expression, never evaluated.

    or      = and  ("||" and)*
    and     = rel  ("&&" rel)*
    rel     = sum  (("==" | "!=" | "<" | "<=" | ">" | ">=") sum | "in" "[" sum ("," sum)* "]")?
    sum     = prod (("+" | "-") prod)*
    prod    = unary (("*" | "/") unary)*
    unary   = ("!" | "-")* member
    member  = primary ("." method "(" args ")")*
    primary = number | string | true | false | null | column | `any column` | function "(" args ")" | "(" or ")"

Missing values are unknown, as in SQL: `a < b` is open where a or b is missing, and an open answer passes. `a == null`
and `has(a)` ask for the missing itself. `/` divides numbers without rounding.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mizzen.data.expectations import functions, terms
from mizzen.data.expectations.terms import Kind, Term, TermError
from mizzen.errors import UserError
from mizzen_api.conditions import Reason

if TYPE_CHECKING:
    import polars as pl

MAX_DEPTH = 32
MAX_OPERATIONS = 256  # polars walks expressions recursively

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<number>(?:\d+\.\d*|\.\d+|\d+)(?:[eE][+-]?\d+)?)
  | (?P<name>[A-Za-z_]\w*)
  | (?P<quoted>`[^`]+`)
  | (?P<string>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
  | (?P<symbol>\|\||&&|==|!=|<=|>=|[<>()\[\],.+\-*/!])
  )""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}
_COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")
_HINTS = {
    "and": "write && for and",
    "or": "write || for or",
    "not": "write ! for not",
    "=": "write == to compare",
    "<>": "write != for unequal",
    "is": "write x == null or has(x)",
    "between": "write low <= x && x <= high",
    "like": "write x.matches('pattern'), x.startsWith('...') or x.contains('...')",
    "&": "write && for and",
    "|": "write || for or",
    "?": "write !condition || consequence",
    "%": "there is no remainder",
    "'": "the text that begins here does not end",
    '"': "the text that begins here does not end",
    "`": "the column name that begins here does not end",
}


@dataclass(frozen=True)
class Compiled:
    """A condition on a row: true, false, or null where a missing value leaves it open; and the columns it reads."""

    condition: pl.Expr
    columns: tuple[str, ...]


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int


def compile_expression(text: str, schema: Mapping[str, pl.DataType], where: str = "expression") -> Compiled:
    """Check `text` against the columns and their types. UserError with the position of what is wrong."""
    try:
        return _Parser(text, schema).parse()
    except TermError as bad:
        start, end = max(0, bad.at - 40), bad.at + 40
        shown = (
            f"{'…' if start else ''}{text[start : bad.at]}‹here›{text[bad.at : end]}{'…' if end < len(text) else ''}"
        )
        raise UserError(
            Reason.INVALID_PARAMETERS, f"{where}, character {bad.at + 1}: {bad}, in: {' '.join(shown.split())}"
        ) from None


class _Parser:
    """Recursive descent; each rule gives a typed term, so that a wrong type is found where it stands."""

    def __init__(self, text: str, schema: Mapping[str, pl.DataType]) -> None:
        self.text = text
        self.schema = schema
        self.tokens = list(_tokens(text))
        self.next = 0
        self.depth = 0
        self.operations = 0
        self.columns: dict[str, None] = {}

    def parse(self) -> Compiled:
        found = self._or()
        token = self._peek()
        if token.kind != "end":
            raise TermError(token.at, _HINTS.get(token.text.lower(), f"expected an operator, found {token.text!r}"))
        terms.need(found, Kind.BOOL, "an expectation is true or false; compare this with something, for example > 0")
        if not self.columns:
            raise TermError(0, "the expression names no column; they are " + ", ".join(self.schema))
        return Compiled(found.expr, tuple(self.columns))

    def _or(self) -> Term:
        found = [self._and()]
        while self._accept("||"):
            found.append(self._and())
        return terms.either(found) if len(found) > 1 else found[0]

    def _and(self) -> Term:
        found = [self._relation()]
        while self._accept("&&"):
            found.append(self._relation())
        return terms.both(found) if len(found) > 1 else found[0]

    def _relation(self) -> Term:
        left = self._sum()
        token = self._peek()
        if token.text in _COMPARISONS and token.kind == "symbol":
            self._take()
            left = terms.compare(token.text, token.at, left, self._sum())
            again = self._peek()
            if again.text in _COMPARISONS and again.kind == "symbol":
                raise TermError(again.at, "comparisons do not chain: write a < b && b < c")
        elif token.kind == "name" and token.text == "in":
            self._take()
            self._expect("[")
            choices = [self._sum()]
            while self._accept(","):
                choices.append(self._sum())
            self._expect("]")
            left = terms.either([terms.compare("==", choice.at, left, choice) for choice in choices])
        return left

    def _sum(self) -> Term:
        left = self._product()
        while token := self._accept("+", "-"):
            left = terms.arithmetic(token.text, token.at, left, self._product())
        return left

    def _product(self) -> Term:
        left = self._unary()
        while token := self._accept("*", "/"):
            left = terms.arithmetic(token.text, token.at, left, self._unary())
        return left

    def _unary(self) -> Term:
        if token := self._accept("!", "-"):
            with self._deeper(token.at):
                return terms.negate(token.text, token.at, self._unary())
        return self._member()

    def _member(self) -> Term:
        found = self._primary()
        while token := self._accept("."):
            name = self._take()
            if name.kind != "name" or self._peek().text != "(":
                raise TermError(
                    token.at,
                    "expected a method, for example .startsWith('a'); a column with a dot in its name needs backticks",
                )
            found = functions.method(name.text, name.at, found, self._arguments())
        return found

    def _primary(self) -> Term:
        token = self._take()
        match token.kind:
            case "number":
                found = terms.number(token.text, token.at)
            case "string":
                value = _ESCAPE.sub(lambda m: _ESCAPES.get(m[1], m[1]), token.text[1:-1])
                found = terms.text(value, token.at)
            case "quoted":
                found = self._column(token.text[1:-1], token.at)
            case "name" if self._peek().text == "(":
                found = functions.function(token.text, token.at, self._arguments())
            case "name" if token.text in terms.CONSTANTS:
                found = terms.constant(token.text, token.at)
            case "name":
                found = self._column(token.text, token.at)
            case _:
                found = self._parenthesis(token)
        return found

    def _parenthesis(self, token: _Token) -> Term:
        if token.text == "(":
            with self._deeper(token.at):
                found = self._or()
                self._expect(")")
            return found
        said = "the end" if token.kind == "end" else repr(token.text)
        raise TermError(token.at, f"expected a column or a value, found {said}")

    def _column(self, name: str, at: int) -> Term:
        if name not in self.schema:
            dotted = self._peek().text == "."
            hint = "a name with a dot in it goes in backticks" if dotted else _HINTS.get(name.lower())
            said = f"; {hint}" if hint else f"; the columns are {', '.join(self.schema)}"
            raise TermError(at, f"there is no column {name!r}{said}")
        self.columns[name] = None
        return terms.column(name, self.schema[name], at)

    def _arguments(self) -> list[Term]:
        at = self._expect("(").at
        found: list[Term] = []
        if self._accept(")"):
            return found
        with self._deeper(at):
            found.append(self._or())
            while self._accept(","):
                found.append(self._or())
            self._expect(")")
        return found

    def _peek(self) -> _Token:
        return self.tokens[self.next]

    def _take(self) -> _Token:
        token = self.tokens[self.next]
        if token.kind != "end":
            self.next += 1
        return token

    def _accept(self, *symbols: str) -> _Token | None:
        token = self._peek()
        if token.kind != "symbol" or token.text not in symbols:
            return None
        self.operations += 1
        if self.operations > MAX_OPERATIONS:
            raise TermError(token.at, f"more than {MAX_OPERATIONS} operations: divide it into several expectations")
        return self._take()

    def _expect(self, symbol: str) -> _Token:
        token = self._take()
        if token.text != symbol or token.kind != "symbol":
            said = "the end" if token.kind == "end" else repr(token.text)
            raise TermError(token.at, _HINTS.get(token.text.lower(), f"expected {symbol!r}, found {said}"))
        return token

    def _deeper(self, at: int) -> _Depth:
        return _Depth(self, at)


class _Depth:
    """One level of nesting more, while it lasts."""

    def __init__(self, parser: _Parser, at: int) -> None:
        self.parser = parser
        self.at = at

    def __enter__(self) -> None:
        self.parser.depth += 1
        if self.parser.depth > MAX_DEPTH:
            raise TermError(self.at, f"nested deeper than {MAX_DEPTH} levels: divide it into several expectations")

    def __exit__(self, *_: object) -> None:
        self.parser.depth -= 1


def _tokens(text: str) -> list[_Token]:
    found = []
    at = 0
    while at < len(text.rstrip()):
        match = _TOKEN.match(text, at)
        if match is None:
            at += len(text[at:]) - len(text[at:].lstrip())
            bad = "<>" if text.startswith("<>", at) else text[at]
            raise TermError(at, _HINTS.get(bad, f"{bad!r} is no part of an expression"))
        kind = str(match.lastgroup)
        start = match.start(kind)
        if text.startswith("<>", start):
            raise TermError(start, _HINTS["<>"])
        found.append(_Token(kind, match[kind], start))
        at = match.end()
    return [*found, _Token("end", "", len(text.rstrip()))]
