"""What a config says of single modules by patterns, looked up as PEFT does and safe with patterns of strangers.

For PEFT a pattern is a regular expression that has to match the end of a module's name, and of several the first counts
(`peft.utils.other.get_pattern_key`). Python's `re` may take years for one and stops every thread meanwhile. So names,
which is what PEFT and most people write, are compared as such; all else is matched by RE2, which takes time in
proportion to pattern and name (https://github.com/google/re2/wiki/WhyRE2).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import re2

from catalog.errors import InvalidAdapterConfig

MAX_PATTERN = 400  # characters
MAX_EXPRESSIONS = 1000  # patterns of a setting that are more than names
MAX_PROGRAM = 64 * 2**10  # bytes of a compiled pattern: some 3,600 instructions
MAX_WORK = 10**9  # instructions times characters, some nanoseconds each
CALL = 1000  # what a call of RE2 costs beyond that
COMPARED = 20  # what a character costs that Python compares

_PLAIN = re.compile(r"(\^?)((?:[\w-]|\\?\.|\\-)*)\$?")
# syntax that RE2 takes for something else than `re` does
_AMBIGUOUS = ("{,", "[:")


class ModulePatterns:
    """The patterns of one setting. Raises `InvalidAdapterConfig` for any that cannot be matched in bounded time.

    `inner` says that PEFT wants something before what the pattern matches, and no group around it (C3A, FourierFT).
    """

    def __init__(self, config: Mapping[str, Any], setting: str, *, inner: bool = False) -> None:
        patterns = config.get(setting) or {}
        if not isinstance(patterns, dict):
            raise InvalidAdapterConfig(f"{setting} is not a JSON object.")
        self._setting = setting
        self._inner = inner
        self._patterns = patterns
        self._values = list(patterns.values())
        self._names: dict[int, dict[tuple[int, ...], dict[tuple[str, bool], int]]] = {}
        self._expressions: list[tuple[int, Any]] = []
        self._left = MAX_WORK
        for number, pattern in enumerate(patterns):
            self._add(number, pattern)

    def value(self, name: str, default: Any) -> Any:
        """The value of the first pattern that matches the end of a module's name.

        Raises `InvalidAdapterConfig` where all lookups together have become too much work.
        """
        first = min(self._same_names(name), default=len(self._values))
        for number, expression in self._expressions:
            if number > first:
                break
            self._spend(expression.programsize * len(name) + CALL)
            if expression.match(name):
                first = number
                break
        if first < len(self._values):
            return self._values[first]
        return self._patterns.get(name, default)

    def _add(self, number: int, pattern: str) -> None:
        if len(pattern) > MAX_PATTERN:
            raise self._refusal(pattern)
        if plain := _PLAIN.fullmatch(pattern):
            text, holes = _without_escapes(plain[2])
            table = self._names.setdefault(len(text), {}).setdefault(holes, {})
            table.setdefault((text, bool(plain[1])), number)
            return
        if len(self._expressions) == MAX_EXPRESSIONS:
            raise InvalidAdapterConfig(
                f"{self._setting} has more than {MAX_EXPRESSIONS:,} regular expressions: name the modules instead."
            )
        self._expressions.append((number, self._compiled(pattern)))

    def _compiled(self, pattern: str) -> Any:
        options = re2.Options()
        options.max_mem = MAX_PROGRAM
        options.log_errors = False
        options.never_capture = True
        try:
            if any(part in pattern for part in _AMBIGUOUS):
                raise self._refusal(pattern)
            return re2.compile(rf".*\.{pattern}$" if self._inner else rf"(.*\.)?({pattern})$", options)
        except (re2.error, UnicodeEncodeError) as error:
            raise self._refusal(pattern) from error

    def _same_names(self, name: str) -> Iterator[int]:
        """The numbers of the plain patterns that match the name."""
        starts = [place + 1 for place, character in enumerate(name) if character == "."]
        for start in starts if self._inner else [0, *starts]:
            end = name[start:]
            for holes, table in self._names.get(len(end), {}).items():
                self._spend(COMPARED * (len(end) + 1))
                masked = _masked(end, holes)
                for anchored in (False, True) if start == 0 else (False,):
                    if (number := table.get((masked, anchored))) is not None:
                        yield number

    def _spend(self, work: int) -> None:
        self._left -= work
        if self._left < 0:
            raise InvalidAdapterConfig(
                f"{self._setting} has too many patterns for so many modules: name the modules instead."
            )

    def _refusal(self, pattern: str) -> InvalidAdapterConfig:
        return InvalidAdapterConfig(
            f"{self._setting}: {pattern[:80]!r} cannot be matched safely. Name the modules, or write a regular "
            f"expression of at most {MAX_PATTERN} characters without lookarounds and backreferences."
        )


def _without_escapes(text: str) -> tuple[str, tuple[int, ...]]:
    """A plain pattern as a text, and where in it any character may stand."""
    characters: list[str] = []
    holes: list[int] = []
    escaped = False
    for character in text:
        if character == "\\":
            escaped = True
            continue
        if character == "." and not escaped:
            holes.append(len(characters))
        characters.append(character)
        escaped = False
    return "".join(characters), tuple(holes)


def _masked(text: str, holes: tuple[int, ...]) -> str:
    characters = list(text)
    for hole in holes:
        characters[hole] = "."
    return "".join(characters)
