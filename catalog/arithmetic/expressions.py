"""The language of expressions: sums of named vectors such as `law + 0.5*code - (chat + 2*"old chat")/3`.

    sum     = product { ("+" | "-") product }
    product = factor { ("*" | "/") factor }
    factor  = { "+" | "-" } ( number | name | "(" sum ")" )
    name    = [ KIND ":" ] ( PART [ "/" PART ] | quoted )

PART is half of a repo id, so it may contain `-` and `.`, and a minus between two names needs a space before it. What
follows a slash is a repo's name unless it is a number. A name in single or double quotes may be any text. Every
expression is linear, so the result of parsing is a list of names with weights, each name once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from catalog.errors import InvalidExpression, InvalidName

MAX_LENGTH = 4_000  # characters
MAX_TERMS = 32
MAX_DEPTH = 32  # nested parentheses
MAX_WEIGHT = 1e9
MAX_NAME_LENGTH = 96  # characters, as in each half of a repo id

_NUMBER = re.compile(r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
_KIND = re.compile(r"([a-z]+):")
_BARE = re.compile(rf"({_PART})(?:/({_PART}))?")
_PLAIN = re.compile(_PART)
_QUOTED = re.compile(r"\"([^\"]*)\"|'([^']*)'")


class Span(NamedTuple):
    """A part of the text: the index of its first character, from 0, and its length."""

    start: int
    length: int

    def to(self, end: Span) -> Span:
        """The span from the start of this one to the end of another."""
        return Span(self.start, end.start + end.length - self.start)


@dataclass(frozen=True)
class Name:
    """A name and its span in the text; `kind` is None if the text gives none."""

    kind: str | None
    text: str
    span: Span


@dataclass(frozen=True)
class Term:
    name: Name
    weight: float


def parse(text: str) -> tuple[Term, ...]:
    """The names of an expression in their order, each once with its weight. Raises `InvalidExpression`."""
    if len(text) > MAX_LENGTH:
        raise _invalid(
            f"An expression may have at most {MAX_LENGTH} characters.", Span(MAX_LENGTH, len(text) - MAX_LENGTH)
        )
    return _Parser(text).parse()


def check_name(name: str) -> str:
    """Return the name if it can stand in an expression without quotes; raises `InvalidName` otherwise."""
    if len(name) > MAX_NAME_LENGTH or not _PLAIN.fullmatch(name) or _NUMBER.fullmatch(name):
        raise InvalidName(
            f"{name[:200]!r} is not a valid name for a vector. Use at most {MAX_NAME_LENGTH} letters, digits and "
            ". _ -, with a letter, digit or _ at both ends, and not a number."
        )
    return name


def format_expression(kind: str | None, name: str) -> str:
    """A term that parses to this kind and name, with quotes where they are needed (`name/500` is a division)."""
    bare = _BARE.fullmatch(name) if kind is None else _PLAIN.fullmatch(name)
    if bare and kind is None and bare[2] and _NUMBER.fullmatch(bare[2]):
        bare = None
    quote = '"' if "'" in name else "'"  # prefer single quotes, since shells need double ones around the expression
    return (f"{kind}:" if kind else "") + (name if bare else f"{quote}{name}{quote}")


def _invalid(message: str, span: Span) -> InvalidExpression:
    error = InvalidExpression(message)
    error.span = span
    return error


@dataclass(frozen=True)
class _Token:
    kind: Literal["number", "name", "sign", "end"]
    text: str
    span: Span
    name: Name | None = None


@dataclass(frozen=True)
class _Value:
    """The value of a part of the text: either terms or, if there are none, a number."""

    span: Span
    number: float = 0.0
    terms: tuple[Term, ...] = ()

    def times(self, factor: float, span: Span) -> _Value:
        terms = tuple(replace(term, weight=term.weight * factor) for term in self.terms)
        return _Value(span, self.number * factor, terms)

    def plus(self, other: _Value) -> _Value:
        if bool(self.terms) != bool(other.terms):
            number = other if self.terms else self
            raise _invalid("A number cannot be added to a vector. Multiply a name by it.", number.span)
        sums = {(term.name.kind, term.name.text): term for term in self.terms}
        for term in other.terms:
            key = (term.name.kind, term.name.text)
            sums[key] = replace(sums[key], weight=_add(sums[key].weight, term.weight)) if key in sums else term
            if len(sums) > MAX_TERMS:
                raise _invalid(f"An expression may have at most {MAX_TERMS} terms.", term.name.span)
        return _Value(self.span.to(other.span), self.number + other.number, tuple(sums.values()))


def _add(one: float, other: float) -> float:
    """Add two weights; a sum within rounding of zero is zero, as in 0.1 + 0.2 - 0.3."""
    total = one + other
    return 0.0 if abs(total) <= 1e-12 * (abs(one) + abs(other)) else total


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        token = _token(text, at)
        yield token
        at += token.span.length
    yield _Token("end", "", Span(len(text), 0))


def _token(text: str, at: int) -> _Token:
    if text[at] in "+-*/()":
        return _Token("sign", text[at], Span(at, 1))
    kind = _KIND.match(text, at)
    start = kind.end() if kind else at
    number = None if kind else _NUMBER.match(text, at)
    bare = _BARE.match(text, start)
    if bare:
        divided = bare[2] is not None and (kind is not None or _NUMBER.fullmatch(bare[2]))
        end = bare.end(1) if divided else bare.end()
        if not number or end > number.end():
            return _name(text, kind, text[start:end], Span(at, end - at))
    if number:
        return _Token("number", number[0], Span(at, number.end() - at))
    if quoted := _QUOTED.match(text, start):
        return _name(text, kind, quoted[1] or quoted[2] or "", Span(at, quoted.end() - at))
    if text[start : start + 1] in ("'", '"'):
        raise _invalid("This quote is not closed.", Span(start, len(text) - start))
    if kind:
        raise _invalid(f"A name is missing after `{kind[0]}`.", Span(at, start - at))
    raise _invalid(f"Unexpected character {text[at]!r}. A name that contains it needs quotes.", Span(at, 1))


def _name(text: str, kind: re.Match[str] | None, name: str, span: Span) -> _Token:
    if not name or not name.isprintable():
        raise _invalid("A name must not be empty or contain unprintable characters.", span)
    return _Token("name", name, span, Name(kind[1] if kind else None, name, span))


class _Parser:
    """A recursive-descent parser with one method for each rule of the grammar."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._at = 0
        self._depth = 0

    def parse(self) -> tuple[Term, ...]:
        if self._next.kind == "end":
            raise _invalid("The expression is empty. Name at least one model, cluster or stored vector.", Span(0, 0))
        value = self._sum()
        if self._next.kind != "end":
            unopened = self._next.text == ")"
            message = "This parenthesis is not opened." if unopened else "An operator (+ - * /) is missing before this."
            raise _invalid(message, self._next.span)
        if not value.terms:
            raise _invalid("The expression is a number. Name at least one model, cluster or stored vector.", value.span)
        for term in value.terms:
            if not abs(term.weight) <= MAX_WEIGHT:  # also rejects NaN
                raise _invalid(f"The weight of this term is above the maximum of {MAX_WEIGHT:g}.", term.name.span)
        return value.terms

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _take(self, signs: str) -> _Token | None:
        token = self._next
        if token.kind != "sign" or token.text not in signs:
            return None
        self._at += 1
        return token

    def _sum(self) -> _Value:
        value = self._product()
        while sign := self._take("+-"):
            other = self._product()
            value = value.plus(other if sign.text == "+" else other.times(-1, other.span))
        return value

    def _product(self) -> _Value:
        value = self._factor()
        while sign := self._take("*/"):
            value = _scale(value, self._factor(), sign)
        return value

    def _factor(self) -> _Value:
        first, factor = self._next.span, 1
        while sign := self._take("+-"):
            factor = -factor if sign.text == "-" else factor
        value = self._atom()
        return value.times(factor, first.to(value.span))

    def _atom(self) -> _Value:
        token = self._next
        if token.kind == "number":
            self._at += 1
            return _Value(token.span, float(token.text))
        if token.name:
            self._at += 1
            return _Value(token.span, terms=(Term(token.name, 1.0),))
        if self._take("("):
            return self._inside(token)
        at_end = token.kind == "end"
        message = "The expression is incomplete." if at_end else "A name or a number is missing before this."
        raise _invalid(message, token.span)

    def _inside(self, opening: _Token) -> _Value:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _invalid(f"Parentheses may be nested at most {MAX_DEPTH} deep.", opening.span)
        value = self._sum()
        closing = self._next.span
        if not self._take(")"):
            if self._next.kind == "end":
                raise _invalid("This parenthesis is not closed.", opening.span)
            raise _invalid("An operator (+ - * /) or a closing parenthesis is missing before this.", closing)
        self._depth -= 1
        return replace(value, span=opening.span.to(closing))


def _scale(value: _Value, other: _Value, sign: _Token) -> _Value:
    span = value.span.to(other.span)
    if sign.text == "*":
        if value.terms and other.terms:
            raise _invalid("Vectors cannot be multiplied. One side of * must be a number.", span)
        return value.times(other.number, span) if value.terms else other.times(value.number, span)
    if other.terms:
        raise _invalid("The divisor must be a number, not a vector.", other.span)
    if other.number == 0:
        raise _invalid("Division by zero.", other.span)
    return value.times(1 / other.number, span)
