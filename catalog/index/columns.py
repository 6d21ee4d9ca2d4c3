"""Columns of attributes, by model id, that grow and are searched by comparing whole arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np


def grown(array: np.ndarray, size: int, fill: float) -> np.ndarray:
    """The same with room for at least `size` entries; copied where there was none."""
    if size <= len(array):
        return array
    larger = np.full(max(size, 2 * len(array), 1_024), fill, array.dtype)
    larger[: len(array)] = array
    return larger


class Codes:
    """Texts by number, in the order of their first coming."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}

    def of(self, text: str | None) -> int:
        """-1 for None."""
        return -1 if text is None else self._codes.setdefault(text, len(self._codes))

    def known(self, texts: Iterable[str]) -> list[int]:
        return [self._codes[text] for text in texts if text in self._codes]


class TextColumn:
    """One text a model, or none."""

    def __init__(self) -> None:
        self._codes = Codes()
        self._values = np.empty(0, np.int32)

    def put(self, models: np.ndarray, texts: Sequence[str | None]) -> None:
        self._values = grown(self._values, int(models.max()) + 1, -1)
        self._values[models] = [self._codes.of(text) for text in texts]

    def given(self, size: int) -> np.ndarray:
        """Bool (size,): the models that have any."""
        return self._values[:size] >= 0

    def any_of(self, texts: Iterable[str], size: int) -> np.ndarray:
        """Bool (size,): the models that have one of the texts."""
        found = np.zeros(size, dtype=bool)
        for code in self._codes.known(texts):
            found |= self._values[:size] == code
        return found


class NumberColumn:
    """One number a model, or NaN."""

    def __init__(self) -> None:
        self._values = np.empty(0, np.float64)

    def put(self, models: np.ndarray, numbers: Sequence[float | None]) -> None:
        self._values = grown(self._values, int(models.max()) + 1, np.nan)
        self._values[models] = [np.nan if number is None else number for number in numbers]

    def at_least(self, number: float, size: int) -> np.ndarray:
        """Bool (size,); false where there is none."""
        return self._values[:size] >= number

    def any_of(self, numbers: Sequence[float], size: int) -> np.ndarray:
        return np.isin(self._values[:size], numbers)


class TagColumn:
    """Any number of tags a model. Each is a pair of model and code in one long run; a model whose tags change gets a
    new stretch of it, and the old one counts no more.
    """

    def __init__(self) -> None:
        self._codes = Codes()
        self._pair_model = np.empty(0, np.int64)
        self._pair_code = np.empty(0, np.int32)
        self._pairs = self._live = 0
        self._start = np.empty(0, np.int64)  # of a model's stretch
        self._length = np.empty(0, np.int64)

    def put(self, models: np.ndarray, tags: Sequence[Sequence[str]]) -> None:
        """Each model at most once."""
        size = int(models.max()) + 1
        self._start, self._length = grown(self._start, size, 0), grown(self._length, size, 0)
        lengths = np.array([len(each) for each in tags])
        codes = [self._codes.of(tag) for each in tags for tag in each]
        end = self._pairs + len(codes)
        self._pair_model, self._pair_code = grown(self._pair_model, end, 0), grown(self._pair_code, end, -1)
        self._pair_model[self._pairs : end] = np.repeat(models, lengths)
        self._pair_code[self._pairs : end] = codes
        self._live += len(codes) - int(self._length[models].sum())
        self._start[models] = self._pairs + np.cumsum(lengths) - lengths
        self._length[models] = lengths
        self._pairs = end
        if self._pairs > 2 * self._live + 1_024:
            self._compact()

    def all_of(self, tags: Iterable[str], size: int) -> np.ndarray:
        """Bool (size,): the models that have every one of the tags."""
        found = np.ones(size, dtype=bool)
        for tag in tags:
            found &= self._with_tag(tag, size)
        return found

    def _with_tag(self, tag: str, size: int) -> np.ndarray:
        found = np.zeros(size, dtype=bool)
        for code in self._codes.known([tag]):
            pairs = np.flatnonzero(self._pair_code[: self._pairs] == code)
            found[self._pair_model[pairs[self._is_live(pairs)]]] = True
        return found

    def _is_live(self, pairs: np.ndarray) -> np.ndarray:
        start = self._start[self._pair_model[pairs]]
        return (start <= pairs) & (pairs < start + self._length[self._pair_model[pairs]])

    def _compact(self) -> None:
        kept = np.flatnonzero(self._is_live(np.arange(self._pairs)))
        self._pair_model, self._pair_code = self._pair_model[kept], self._pair_code[kept]
        # stretches stay whole and in order
        models, first = np.unique(self._pair_model, return_index=True)
        self._start[models] = first
        self._pairs = self._live = len(kept)
