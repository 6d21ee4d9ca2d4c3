"""Sums of named vectors as people write them: `law + 0.5*code - (chat + 2*"old chat")/3`.

    sum     = product { ("+" | "-") product }
    product = factor { ("*" | "/") factor }
    factor  = { "+" | "-" } ( number | name | "(" sum ")" )
    name    = [ KIND ":" ] ( PART [ "/" PART ] | quoted )

PART is half a repo id, so it may hold `-` and `.`: a minus between two names needs a space before it. What follows a
slash is a repo's name unless it reads as a number. Quotes, single or double, take any name. Everything is linear: a
parse gives names and weights, and each name once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from catalog.errors import InvalidExpression, InvalidName

MAX_LENGTH = 4_000  # characters
MAX_TERMS = 32
MAX_DEPTH = 32  # parentheses
MAX_WEIGHT = 1e9
MAX_NAME = 96  # characters, as half a repo id

_NUMBER = re.compile(r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
_KIND = re.compile(r"([a-z]+):")
_BARE = re.compile(rf"({_PART})(?:/({_PART}))?")
_PLAIN = re.compile(_PART)
_QUOTED = re.compile(r"\"([^\"]*)\"|'([^']*)'")


class Place(NamedTuple):
    """What part of the text: the first character's number, from 0, and how many there are."""

    start: int
    length: int

    def to(self, end: Place) -> Place:
        return Place(self.start, end.start + end.length - self.start)


@dataclass(frozen=True)
class Name:
    """A name and where it stands; `kind` is None where it was not said."""

    kind: str | None
    text: str
    place: Place


@dataclass(frozen=True)
class Term:
    name: Name
    weight: float


def parse(text: str) -> tuple[Term, ...]:
    """The names in their order, each once with its weight; raises `InvalidExpression`."""
    if len(text) > MAX_LENGTH:
        raise _invalid(f"An expression has at most {MAX_LENGTH} characters.", Place(MAX_LENGTH, len(text) - MAX_LENGTH))
    return _Parser(text).parse()


def check_name(name: str) -> str:
    """A name that an expression can hold without quotes; raises `InvalidName`."""
    if len(name) > MAX_NAME or not _PLAIN.fullmatch(name) or _NUMBER.fullmatch(name):
        raise InvalidName(
            f"{name[:200]!r} is not a name for a vector. Letters, digits and . _ - only, at most {MAX_NAME}, "
            "beginning and ending with a letter or digit, and no number."
        )
    return name


def written(kind: str | None, name: str) -> str:
    """A name as it can stand in an expression; quoted where `name/500` would be read as a division."""
    plain = _BARE.fullmatch(name) if kind is None else _PLAIN.fullmatch(name)
    if plain and kind is None and plain[2] and _NUMBER.fullmatch(plain[2]):
        plain = None
    quote = '"' if "'" in name else "'"  # single ones as far as possible: the whole stands in double ones in a shell
    return (f"{kind}:" if kind else "") + (name if plain else f"{quote}{name}{quote}")


def _invalid(sentence: str, place: Place) -> InvalidExpression:
    error = InvalidExpression(sentence)
    error.place = place
    return error


@dataclass(frozen=True)
class _Token:
    kind: Literal["number", "name", "sign", "end"]
    text: str
    place: Place
    name: Name | None = None


@dataclass(frozen=True)
class _Value:
    """What a part of the text comes to: names with weights, or else a number."""

    place: Place
    number: float = 0.0
    terms: tuple[Term, ...] = ()

    def times(self, factor: float, place: Place) -> _Value:
        terms = tuple(replace(each, weight=each.weight * factor) for each in self.terms)
        return _Value(place, self.number * factor, terms)

    def plus(self, other: _Value) -> _Value:
        if bool(self.terms) != bool(other.terms):
            alone = other if self.terms else self
            raise _invalid("A number by itself is no vector: multiply a name by it.", alone.place)
        sums = {(each.name.kind, each.name.text): each for each in self.terms}
        for each in other.terms:
            key = (each.name.kind, each.name.text)
            sums[key] = replace(sums[key], weight=_added(sums[key].weight, each.weight)) if key in sums else each
            if len(sums) > MAX_TERMS:
                raise _invalid(f"A sum has at most {MAX_TERMS} terms.", each.name.place)
        return _Value(self.place.to(other.place), self.number + other.number, tuple(sums.values()))


def _added(one: float, other: float) -> float:
    """0.1 + 0.2 - 0.3 is nothing, whatever binary fractions leave of it."""
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
        at += token.place.length
    yield _Token("end", "", Place(len(text), 0))


def _token(text: str, at: int) -> _Token:
    if text[at] in "+-*/()":
        return _Token("sign", text[at], Place(at, 1))
    kind = _KIND.match(text, at)
    start = kind.end() if kind else at
    number = None if kind else _NUMBER.match(text, at)
    bare = _BARE.match(text, start)
    if bare:
        divided = bare[2] is not None and (kind is not None or _NUMBER.fullmatch(bare[2]))
        end = bare.end(1) if divided else bare.end()
        if not number or end > number.end():
            return _name(text, kind, text[start:end], Place(at, end - at))
    if number:
        return _Token("number", number[0], Place(at, number.end() - at))
    if quoted := _QUOTED.match(text, start):
        return _name(text, kind, quoted[1] or quoted[2] or "", Place(at, quoted.end() - at))
    if text[start : start + 1] in ("'", '"'):
        raise _invalid("This quote is never closed.", Place(start, len(text) - start))
    if kind:
        raise _invalid(f"A name is missing after {kind[0]}", Place(at, start - at))
    raise _invalid(f"{text[at]!r} means nothing here; a name that holds it takes quotes.", Place(at, 1))


def _name(text: str, kind: re.Match[str] | None, name: str, place: Place) -> _Token:
    if not name or not name.isprintable():
        raise _invalid("This is no name: it is empty, or holds characters that cannot be seen.", place)
    return _Token("name", name, place, Name(kind[1] if kind else None, name, place))


class _Parser:
    """Recursive descent, one method a rule of the grammar."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._at = 0
        self._depth = 0

    def parse(self) -> tuple[Term, ...]:
        if self._next.kind == "end":
            raise _invalid("The expression is empty: name at least one model, cluster or stored vector.", Place(0, 0))
        value = self._sum()
        if self._next.kind != "end":
            unopened = self._next.text == ")"
            sentence = "This parenthesis was never opened." if unopened else "Write + - * or / before this."
            raise _invalid(sentence, self._next.place)
        if not value.terms:
            raise _invalid("No name is in this: a number by itself is no vector.", value.place)
        for each in value.terms:
            if not abs(each.weight) <= MAX_WEIGHT:  # nor NaN
                raise _invalid(f"A weight is at most {MAX_WEIGHT:g}, and this has more.", each.name.place)
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
            value = value.plus(other if sign.text == "+" else other.times(-1, other.place))
        return value

    def _product(self) -> _Value:
        value = self._factor()
        while sign := self._take("*/"):
            value = _scaled(value, self._factor(), sign)
        return value

    def _factor(self) -> _Value:
        first, factor = self._next.place, 1
        while sign := self._take("+-"):
            factor = -factor if sign.text == "-" else factor
        value = self._atom()
        return value.times(factor, first.to(value.place))

    def _atom(self) -> _Value:
        token = self._next
        if token.kind == "number":
            self._at += 1
            return _Value(token.place, float(token.text))
        if token.name:
            self._at += 1
            return _Value(token.place, terms=(Term(token.name, 1.0),))
        if self._take("("):
            return self._inside(token)
        sentence = "Something is missing at the end." if token.kind == "end" else "A name or a number is missing here."
        raise _invalid(sentence, token.place)

    def _inside(self, opening: _Token) -> _Value:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _invalid(f"Parentheses go at most {MAX_DEPTH} deep.", opening.place)
        value = self._sum()
        closing = self._next.place
        if not self._take(")"):
            if self._next.kind == "end":
                raise _invalid("This parenthesis is never closed.", opening.place)
            raise _invalid("Write + - * / or ) before this.", closing)
        self._depth -= 1
        return replace(value, place=opening.place.to(closing))


def _scaled(value: _Value, other: _Value, sign: _Token) -> _Value:
    place = value.place.to(other.place)
    if sign.text == "*":
        if value.terms and other.terms:
            raise _invalid("Two vectors cannot be multiplied: one side of * is a number.", place)
        return value.times(other.number, place) if value.terms else other.times(value.number, place)
    if other.terms:
        raise _invalid("Nothing can be divided by a vector.", other.place)
    if other.number == 0:
        raise _invalid("Nothing can be divided by zero.", other.place)
    return value.times(1 / other.number, place)
