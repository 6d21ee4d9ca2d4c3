"""Growing attribute columns indexed by model id. A filter compares a whole column at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np


def grow(array: np.ndarray, size: int, fill: float) -> np.ndarray:
    """The array itself if it has at least `size` entries, else a larger copy whose new entries are `fill`."""
    if size <= len(array):
        return array
    larger = np.full(max(size, 2 * len(array), 1_024), fill, array.dtype)
    larger[: len(array)] = array
    return larger


class TextCodes:
    """Numbers texts in the order in which they first occur."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}

    def code(self, text: str | None) -> int:
        """The code of a text, assigned if it is new; -1 for None."""
        return -1 if text is None else self._codes.setdefault(text, len(self._codes))

    def codes(self, texts: Iterable[str]) -> list[int]:
        """The codes of those texts that have one."""
        return [self._codes[text] for text in texts if text in self._codes]


class TextColumn:
    """One text or None for each model."""

    def __init__(self) -> None:
        self._codes = TextCodes()
        self._values = np.empty(0, np.int32)

    def set(self, model_ids: np.ndarray, texts: Sequence[str | None]) -> None:
        self._values = grow(self._values, int(model_ids.max()) + 1, -1)
        self._values[model_ids] = [self._codes.code(text) for text in texts]

    def has_value(self, size: int) -> np.ndarray:
        """Bool (size,): whether the model has a text."""
        return self._values[:size] >= 0

    def any_of(self, texts: Iterable[str], size: int) -> np.ndarray:
        """Bool (size,): whether the model has one of the texts."""
        mask = np.zeros(size, dtype=bool)
        for code in self._codes.codes(texts):
            mask |= self._values[:size] == code
        return mask


class ClusterColumn:
    """The cluster of each model, or none, in the runs that searches filter by. A model is in one of the runs."""

    def __init__(self) -> None:
        self._clusters = np.empty(0, np.int64)
        self._runs = np.empty(0, np.int64)

    def set(self, model_ids: np.ndarray, runs: Sequence[int | None], clusters: Sequence[int | None]) -> None:
        """Set the clusters of models (n,), and the runs that assigned them."""
        self._grow(model_ids)
        self._runs[model_ids] = [-1 if run is None else run for run in runs]
        self._clusters[model_ids] = [-1 if cluster is None else cluster for cluster in clusters]

    def show(self, run: int, model_ids: np.ndarray, clusters: np.ndarray) -> None:
        """Set the clusters (n,) of all models (n,) of a run."""
        if len(model_ids):
            self._grow(model_ids)
            self._runs[model_ids], self._clusters[model_ids] = run, clusters

    def hide(self, run: int) -> None:
        """Remove the models of a run from their clusters."""
        members = self._runs == run
        self._runs[members] = self._clusters[members] = -1

    def any_of(self, clusters: Iterable[int], size: int) -> np.ndarray:
        """Bool (size,): whether the model is in one of the clusters."""
        mask = np.zeros(size, dtype=bool)
        known = self._clusters[:size]
        for cluster in clusters:
            mask[: len(known)] |= known == cluster
        return mask

    def _grow(self, model_ids: np.ndarray) -> None:
        size = int(model_ids.max()) + 1
        self._clusters, self._runs = grow(self._clusters, size, -1), grow(self._runs, size, -1)


class NumberColumn:
    """One number or NaN for each model."""

    def __init__(self) -> None:
        self._values = np.empty(0, np.float64)

    def set(self, model_ids: np.ndarray, numbers: Sequence[float | None]) -> None:
        self._values = grow(self._values, int(model_ids.max()) + 1, np.nan)
        self._values[model_ids] = [np.nan if number is None else number for number in numbers]

    def at_least(self, number: float, size: int) -> np.ndarray:
        """Bool (size,): whether the model's number is at least this; false for NaN."""
        return self._values[:size] >= number


class TagColumn:
    """Any number of tags for each model, stored as (model id, code) pairs in two append-only arrays. The live pairs of
    a model are one contiguous range. A model whose tags change gets a new range at the end, and its old one is dead.
    """

    def __init__(self) -> None:
        self._codes = TextCodes()
        self._pair_model = np.empty(0, np.int64)
        self._pair_code = np.empty(0, np.int32)
        self._pairs = self._live = 0
        self._start = np.empty(0, np.int64)  # of a model's range
        self._length = np.empty(0, np.int64)

    def set(self, model_ids: np.ndarray, tags: Sequence[Sequence[str]]) -> None:
        """Replace the tags of models, each given at most once."""
        size = int(model_ids.max()) + 1
        self._start, self._length = grow(self._start, size, 0), grow(self._length, size, 0)
        lengths = np.array([len(model_tags) for model_tags in tags])
        codes = [self._codes.code(tag) for model_tags in tags for tag in model_tags]
        end = self._pairs + len(codes)
        self._pair_model, self._pair_code = grow(self._pair_model, end, 0), grow(self._pair_code, end, -1)
        self._pair_model[self._pairs : end] = np.repeat(model_ids, lengths)
        self._pair_code[self._pairs : end] = codes
        self._live += len(codes) - int(self._length[model_ids].sum())
        self._start[model_ids] = self._pairs + np.cumsum(lengths) - lengths
        self._length[model_ids] = lengths
        self._pairs = end
        if self._pairs > 2 * self._live + 1_024:
            self._compact()

    def all_of(self, tags: Iterable[str], size: int) -> np.ndarray:
        """Bool (size,): whether the model has every one of the tags."""
        mask = np.ones(size, dtype=bool)
        for tag in tags:
            mask &= self._with_tag(tag, size)
        return mask

    def _with_tag(self, tag: str, size: int) -> np.ndarray:
        mask = np.zeros(size, dtype=bool)
        for code in self._codes.codes([tag]):
            pairs = np.flatnonzero(self._pair_code[: self._pairs] == code)
            mask[self._pair_model[pairs[self._is_live(pairs)]]] = True
        return mask

    def _is_live(self, pairs: np.ndarray) -> np.ndarray:
        start = self._start[self._pair_model[pairs]]
        return (start <= pairs) & (pairs < start + self._length[self._pair_model[pairs]])

    def _compact(self) -> None:
        live = np.flatnonzero(self._is_live(np.arange(self._pairs)))
        self._pair_model, self._pair_code = self._pair_model[live], self._pair_code[live]
        # ranges stay contiguous and in order
        model_ids, first = np.unique(self._pair_model, return_index=True)
        self._start[model_ids] = first
        self._pairs = self._live = len(live)
