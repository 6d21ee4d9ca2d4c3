"""The index of one space: a mapped main segment, if there is one, and fresh exact segments with the changes since.

An update makes new segments and replaces one reference. It never changes anything that a search is reading.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from catalog.geometry.repository import GeometryKey, StoredGeometry
from catalog.index.mapped_segment import MappedSegment
from catalog.index.row_bitmap import RowBitmap
from catalog.index.segment import FlatSegment, Segment, SegmentHits
from catalog.vectors.numeric import normalize, validate_vector
from catalog.vectors.repository.feed import Change

FRESH_SEGMENT_BYTES = 4 * 2**20  # each update rebuilds the last fresh segment; above this size a new one is started


@dataclass(frozen=True)
class SearchHits:
    """The models (k,) int64 and cosines (k,) float32, best first, with the last change that the search covered and the
    generation of the main segment (0: none). `exact`: no nearer model is missing.
    """

    model_ids: np.ndarray
    cosines: np.ndarray
    covered_seq: int
    generation: int = 0
    exact: bool = True
    _locations: tuple[_Location, ...] = ()

    def vectors(self) -> np.ndarray:
        """The normalized vectors float32 (k, d) of the hits. Those that the search has read are not read again."""
        dimension = self._locations[0].segment.dimension if self._locations else 0
        vectors = np.empty((len(self.model_ids), dimension), np.float32)
        for location in self._locations:
            vectors[location.indices] = location.read()
        return vectors

    def select(self, indices: np.ndarray, cosines: np.ndarray) -> SearchHits:
        """The hits at these indices (m,), in that order, with other cosines (m,)."""
        new_index = np.full(len(self.model_ids), -1)
        new_index[indices] = np.arange(len(indices))
        locations = []
        for location in self._locations:
            moved = new_index[location.indices]
            if (moved >= 0).any():
                locations.append(location.select(moved >= 0, moved[moved >= 0]))
        return replace(self, model_ids=self.model_ids[indices], cosines=cosines, _locations=tuple(locations))


@dataclass(frozen=True)
class _Location:
    """Where hits are: a segment, its rows, their indices in the hits, and their vectors if the search has read them."""

    segment: Segment
    rows: np.ndarray
    indices: np.ndarray
    vectors: np.ndarray | None = None

    def read(self) -> np.ndarray:
        return self.segment.vectors(self.rows) if self.vectors is None else self.vectors

    def select(self, kept: np.ndarray, indices: np.ndarray) -> _Location:
        """The rows for which `kept` is true, at other indices."""
        vectors = self.vectors if self.vectors is None or kept.all() else self.vectors[kept]
        return _Location(self.segment, self.rows[kept], indices, vectors)


def concatenate(searches: Sequence[SearchHits]) -> SearchHits:
    """The hits of one or more searches of one index, one after the other; not sorted by cosine."""
    starts = np.cumsum([0, *(len(hits.model_ids) for hits in searches)])
    locations = [
        replace(location, indices=location.indices + start)
        for hits, start in zip(searches, starts[:-1], strict=True)
        for location in hits._locations
    ]
    return SearchHits(
        np.concatenate([hits.model_ids for hits in searches]),
        np.concatenate([hits.cosines for hits in searches]),
        min(hits.covered_seq for hits in searches),
        searches[0].generation,
        all(hits.exact for hits in searches),
        tuple(locations),
    )


@dataclass(frozen=True)
class _LiveSegment:
    """A segment, and those of its rows that are not outdated by a later change (`alive` None: all)."""

    segment: Segment
    alive: RowBitmap | None = None

    def __len__(self) -> int:
        return len(self.segment) if self.alive is None else self.alive.count

    def without(self, model_ids: np.ndarray) -> _LiveSegment:
        rows = self.segment.rows_of(model_ids)
        return _LiveSegment(self.segment, self._alive().without(rows)) if len(rows) else self

    def searchable_rows(self, allowed: np.ndarray | None, excluded: np.ndarray) -> RowBitmap | None:
        """The rows that a search may return; None: all."""
        rows = self.alive
        if allowed is not None:
            rows = self._alive() & RowBitmap.from_mask(allowed.take(self.segment.model_ids, mode="clip"))
        excluded_rows = self.segment.rows_of(excluded)
        if len(excluded_rows):
            rows = (self._alive() if rows is None else rows).without(excluded_rows)
        return rows

    def alive_rows(self) -> np.ndarray:
        return np.flatnonzero(self._alive().mask(len(self.segment)))

    def _alive(self) -> RowBitmap:
        return RowBitmap.all(len(self.segment)) if self.alive is None else self.alive


@dataclass(frozen=True)
class _View:
    """The segments that searches read, replaced as a whole. All changes after `complete_since`, up to `covered_seq`,
    are in `fresh` or in `removed`: the models that were removed after the main segment was built, with the `seq` of the
    removal.
    """

    covered_seq: int = 0
    complete_since: int = 0
    main: _LiveSegment | None = None
    fresh: tuple[_LiveSegment, ...] = ()  # flat segments
    removed: dict[int, int] = field(default_factory=dict)

    @property
    def segments(self) -> tuple[_LiveSegment, ...]:
        return self.fresh if self.main is None else (self.main, *self.fresh)


class SpaceIndex:
    """Cosine search over the newest vector of each model in a space of dimension d. One thread at a time may change it,
    while any number of threads search it.
    """

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self.geometries: Mapping[GeometryKey, StoredGeometry] = {}  # the newest fits; replaced as a whole
        self._view = _View()

    def __len__(self) -> int:
        return sum(len(live) for live in self._view.segments)

    def count(self, allowed: np.ndarray | None) -> int:
        """The number of models for which `allowed` (bool, by model id) is true; None: of all models."""
        if allowed is None:
            return len(self)
        alive_ids = [live.segment.model_ids[live.alive_rows()] for live in self._view.segments]
        return sum(int(allowed.take(model_ids, mode="clip").sum()) for model_ids in alive_ids)

    @property
    def covered_seq(self) -> int:
        """The last change that searches cover."""
        return self._view.covered_seq

    @property
    def main(self) -> MappedSegment | None:
        live = self._view.main
        return live.segment if live is not None and isinstance(live.segment, MappedSegment) else None

    @property
    def generation(self) -> int:
        return self.main.manifest.generation if self.main else 0

    @property
    def fresh_vectors(self) -> int:
        return sum(len(live) for live in self._view.fresh)

    @property
    def memory(self) -> int:
        return sum(live.segment.memory for live in self._view.segments)

    def apply(self, changes: Sequence[Change]) -> None:
        """Apply the next entries of the feed, in its order. A vector of another dimension counts as removed."""
        newest = {change.model_id: change for change in changes}
        changed = np.fromiter(newest, dtype=np.int64)
        added = [
            change for change in newest.values() if change.vector is not None and change.vector.size == self.dimension
        ]
        removed = {model_id: change.seq for model_id, change in newest.items()}
        for change in added:
            del removed[change.model_id]
        vectors = np.array([change.vector for change in added], np.float32).reshape(-1, self.dimension)
        model_ids = np.array([change.model_id for change in added], np.int64)
        seqs = np.array([change.seq for change in added], np.int64)
        self._apply(changed, (model_ids, vectors, seqs), removed, changes[-1].seq)

    def fill(self, model_ids: np.ndarray, vectors: np.ndarray, covered_seq: int) -> None:
        """Add models (m,) that are not in the index yet, with their vectors (m, d) as of the change `covered_seq`."""
        seqs = np.full(len(model_ids), covered_seq, np.int64)
        self._apply(np.empty(0, np.int64), (model_ids, vectors, seqs), {}, covered_seq, complete_since=covered_seq)

    def can_swap(self, covered_seq: int) -> bool:
        """Whether this index holds all changes after `covered_seq`, and so can update a main segment built then."""
        return covered_seq >= self._view.complete_since

    def swap(self, main: MappedSegment) -> None:
        """Replace the main segment by another one for which `can_swap` is true."""
        view, main_seq = self._view, main.manifest.covered_seq
        fresh = [_newer_than(main_seq, live) for live in view.fresh]
        removed = {model_id: seq for model_id, seq in view.removed.items() if seq > main_seq}
        replaced = [live.segment.model_ids for live in fresh]
        outdated = np.concatenate([np.fromiter(removed, dtype=np.int64), *replaced])
        self._view = _View(
            covered_seq=max(view.covered_seq, main_seq),
            complete_since=main_seq,
            main=_LiveSegment(main).without(outdated),
            fresh=tuple(live for live in fresh if len(live)),
            removed=removed,
        )

    def search(
        self,
        vector: np.ndarray,
        k: int,
        *,
        exclude: Collection[int] = (),
        allowed: np.ndarray | None = None,
        min_similarity: float = -1,
    ) -> SearchHits:
        """The k nearest models to a vector (d,) by cosine, without the ids in `exclude` and the models for which
        `allowed` (bool, by model id) is false.

        Raises `SpaceMismatch` for another dimension, and `InvalidVector` for NaN, infinity or all zeros.
        """
        query, view = self.query(vector), self._view
        excluded = np.unique(np.fromiter(exclude, dtype=np.int64))
        hits = [live.segment.search(query, k, live.searchable_rows(allowed, excluded)) for live in view.segments]
        return _merge(view, hits, k, min_similarity)

    def query(self, vector: np.ndarray) -> np.ndarray:
        """A vector (d,) in the form that searches compare: float32, of length 1. Raises what `search` raises."""
        return normalize(validate_vector(vector, self.dimension))

    def _apply(
        self,
        changed: np.ndarray,
        added: tuple[np.ndarray, np.ndarray, np.ndarray],
        removed: dict[int, int],
        seq: int,
        complete_since: int = 0,
    ) -> None:
        view = self._view
        fresh = [_compact(live.without(changed)) for live in view.fresh]
        entries = [added]
        if fresh and fresh[-1].segment.memory < FRESH_SEGMENT_BYTES:
            entries.insert(0, _entries(fresh.pop()))
        model_ids, vectors, seqs = (np.concatenate(arrays) for arrays in zip(*entries, strict=True))
        if len(model_ids):
            fresh.append(_LiveSegment(FlatSegment(model_ids, vectors, seqs)))
        removed = view.removed | removed
        if removed:  # a fill adds many models and removes none
            added_ids = set(added[0].tolist())
            removed = {model_id: at for model_id, at in removed.items() if model_id not in added_ids}
        self._view = replace(
            view,
            covered_seq=max(view.covered_seq, seq),
            complete_since=max(view.complete_since, complete_since),
            main=view.main.without(changed) if view.main else None,
            fresh=tuple(live for live in fresh if len(live)),
            removed=removed,
        )


def _entries(live: _LiveSegment, rows: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    assert isinstance(live.segment, FlatSegment)
    return live.segment.entries(live.alive_rows() if rows is None else rows)


def _compact(live: _LiveSegment) -> _LiveSegment:
    """The segment, rebuilt without its outdated rows if they are at least half of it."""
    return live if 2 * len(live) > len(live.segment) else _LiveSegment(FlatSegment(*_entries(live)))


def _newer_than(seq: int, live: _LiveSegment) -> _LiveSegment:
    """A segment of the alive rows that changed after `seq`."""
    assert isinstance(live.segment, FlatSegment)
    rows = live.alive_rows()
    return _LiveSegment(FlatSegment(*_entries(live, rows[live.segment.seqs[rows] > seq])))


def _merge(view: _View, hits: Sequence[SegmentHits], k: int, min_similarity: float) -> SearchHits:
    """The k best of the hits in each segment of the view."""
    segments = [live.segment for live in view.segments]
    generation = view.main.segment.manifest.generation if view.main else 0  # type: ignore[attr-defined]
    if not segments:
        return SearchHits(np.empty(0, np.int64), np.empty(0, np.float32), view.covered_seq)
    model_ids = np.concatenate(
        [segment.model_ids[segment_hits.rows] for segment, segment_hits in zip(segments, hits, strict=True)]
    )
    cosines = np.clip(np.concatenate([segment_hits.cosines for segment_hits in hits]), -1, 1)  # rounding may exceed 1
    starts = np.cumsum([0, *(len(segment_hits.rows) for segment_hits in hits)])
    locations = tuple(
        _Location(segment, segment_hits.rows, start + np.arange(len(segment_hits.rows)), segment_hits.vectors)
        for segment, segment_hits, start in zip(segments, hits, starts[:-1], strict=True)
    )
    exact = all(segment_hits.exact for segment_hits in hits)
    merged = SearchHits(model_ids, cosines, view.covered_seq, generation, exact, locations)
    best = np.argsort(-cosines, kind="stable")[:k]
    best = best[cosines[best] >= min_similarity]
    return merged.select(best, cosines[best])
