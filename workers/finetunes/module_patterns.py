"""Per-module settings by patterns, with PEFT's semantics, and safe for untrusted patterns.

In PEFT a pattern is a regular expression that must match the end of a module's name, and the first that matches applies
(`peft.utils.other.get_pattern_key`). Python's `re` can take exponential time for a pattern and holds the GIL. So plain
names, which PEFT and most users write, are compared as strings, and other patterns are matched by RE2, whose time is
linear in pattern and name (https://github.com/google/re2/wiki/WhyRE2).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import re2

from catalog.errors import InvalidAdapterConfig

MAX_PATTERN_CHARACTERS = 400
MAX_EXPRESSIONS = 1000  # patterns of a setting that are not plain names
MAX_PROGRAM_BYTES = 64 * 2**10  # bytes of a compiled pattern: about 3,600 instructions
MAX_COST = 10**9  # instructions times characters, a few nanoseconds each
CALL_COST = 1000  # of a call of RE2
COMPARISON_COST = 20  # of a character that Python compares

_PLAIN = re.compile(r"(\^?)((?:[\w-]|\\?\.|\\-)*)\$?")
# syntax with different meanings in RE2 and `re`
_AMBIGUOUS = ("{,", "[:")


class ModulePatterns:
    """The patterns of one setting. Raises `InvalidAdapterConfig` for a pattern that cannot be matched in bounded time.

    With `inner`, a pattern must match after a dot and is not grouped, as PEFT does for C3A and FourierFT.
    """

    def __init__(self, config: Mapping[str, Any], setting: str, *, inner: bool = False) -> None:
        patterns = config.get(setting) or {}
        if not isinstance(patterns, dict):
            raise InvalidAdapterConfig(f"{setting} is not a JSON object.")
        self._setting = setting
        self._inner = inner
        self._patterns = patterns
        self._values = list(patterns.values())
        # plain names: length -> positions of wildcards -> (text, anchored at the start) -> number of the pattern
        self._names: dict[int, dict[tuple[int, ...], dict[tuple[str, bool], int]]] = {}
        self._expressions: list[tuple[int, Any]] = []
        self._remaining_cost = MAX_COST
        for number, pattern in enumerate(patterns):
            self._add(number, pattern)

    def value(self, name: str, default: Any) -> Any:
        """The value of the first pattern that matches the end of a module's name, or `default`.

        Raises `InvalidAdapterConfig` once all lookups together exceed the cost limit.
        """
        first = min(self._matching_plain_patterns(name), default=len(self._values))
        for number, expression in self._expressions:
            if number > first:
                break
            self._add_cost(expression.programsize * len(name) + CALL_COST)
            if expression.match(name):
                first = number
                break
        if first < len(self._values):
            return self._values[first]
        return self._patterns.get(name, default)

    def _add(self, number: int, pattern: str) -> None:
        if len(pattern) > MAX_PATTERN_CHARACTERS:
            raise self._refusal(pattern)
        if plain_pattern := _PLAIN.fullmatch(pattern):
            text, wildcards = _without_escapes(plain_pattern[2])
            table = self._names.setdefault(len(text), {}).setdefault(wildcards, {})
            table.setdefault((text, bool(plain_pattern[1])), number)
            return
        if len(self._expressions) == MAX_EXPRESSIONS:
            raise InvalidAdapterConfig(
                f"{self._setting} has more than {MAX_EXPRESSIONS:,} regular expressions: name the modules instead."
            )
        self._expressions.append((number, self._compiled(pattern)))

    def _compiled(self, pattern: str) -> Any:
        options = re2.Options()
        options.max_mem = MAX_PROGRAM_BYTES
        options.log_errors = False
        options.never_capture = True
        try:
            if any(part in pattern for part in _AMBIGUOUS):
                raise self._refusal(pattern)
            return re2.compile(rf".*\.{pattern}$" if self._inner else rf"(.*\.)?({pattern})$", options)
        except (re2.error, UnicodeEncodeError) as error:
            raise self._refusal(pattern) from error

    def _matching_plain_patterns(self, name: str) -> Iterator[int]:
        """Indices of the plain patterns that match the name."""
        starts = [position + 1 for position, character in enumerate(name) if character == "."]
        for start in starts if self._inner else [0, *starts]:
            suffix = name[start:]
            for wildcards, table in self._names.get(len(suffix), {}).items():
                self._add_cost(COMPARISON_COST * (len(suffix) + 1))
                masked = _masked(suffix, wildcards)
                for anchored in (False, True) if start == 0 else (False,):
                    if (number := table.get((masked, anchored))) is not None:
                        yield number

    def _add_cost(self, cost: int) -> None:
        self._remaining_cost -= cost
        if self._remaining_cost < 0:
            raise InvalidAdapterConfig(
                f"{self._setting} has too many patterns for so many modules: name the modules instead."
            )

    def _refusal(self, pattern: str) -> InvalidAdapterConfig:
        return InvalidAdapterConfig(
            f"{self._setting}: {pattern[:80]!r} cannot be matched safely. Name the modules, or write a regular "
            f"expression of at most {MAX_PATTERN_CHARACTERS} characters without lookarounds and backreferences."
        )


def _without_escapes(text: str) -> tuple[str, tuple[int, ...]]:
    """A plain pattern as text, and the positions of its dots, which match any character."""
    characters: list[str] = []
    wildcards: list[int] = []
    escaped = False
    for character in text:
        if character == "\\":
            escaped = True
            continue
        if character == "." and not escaped:
            wildcards.append(len(characters))
        characters.append(character)
        escaped = False
    return "".join(characters), tuple(wildcards)


def _masked(text: str, wildcards: tuple[int, ...]) -> str:
    characters = list(text)
    for wildcard in wildcards:
        characters[wildcard] = "."
    return "".join(characters)
