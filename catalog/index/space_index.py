"""The index of one space: a mapped main segment where there is one, and fresh exact ones that the feed fills.

A refresh makes new segments and replaces one reference; it never changes what a search is reading.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from catalog.geometry.repository import Fitted, Place
from catalog.index.mapped_segment import MappedSegment
from catalog.index.row_bitmap import Rows
from catalog.index.segment import FlatSegment, Found, Segment
from catalog.vectors.numeric import checked, normalized
from catalog.vectors.repository.feed import Change

FRESH_BYTES = 4 * 2**20  # the last fresh segment is made anew by each refresh; past this it is left and one begun


@dataclass(frozen=True)
class Hits:
    """Models (k,) int64 and cosines (k,) float32, best first, and what they rest on: the last change taken into
    account, the generation of the main segment (0: none), and whether no nearer model can be missing.
    """

    model_ids: np.ndarray
    cosines: np.ndarray
    covered_seq: int
    generation: int = 0
    exact: bool = True
    _places: tuple[tuple[Segment, np.ndarray, np.ndarray], ...] = ()  # segment, its rows, their places in the hits

    def vectors(self) -> np.ndarray:
        """The normalised vectors float32 (k, d) of the hits."""
        parts = [segment.vectors(rows) for segment, rows, _ in self._places]
        found = np.empty((len(self.model_ids), parts[0].shape[1] if parts else 0), np.float32)
        for (_, _, places), part in zip(self._places, parts, strict=True):
            found[places] = part
        return found

    def chosen(self, order: np.ndarray, cosines: np.ndarray) -> Hits:
        """Those at some places (m,) of these, in that order, with cosines (m,) of another measure."""
        to = np.full(len(self.model_ids), -1)
        to[order] = np.arange(len(order))
        places = ((segment, rows[to[at] >= 0], to[at][to[at] >= 0]) for segment, rows, at in self._places)
        kept = tuple(place for place in places if len(place[1]))
        return replace(self, model_ids=self.model_ids[order], cosines=cosines, _places=kept)


def joined(found: Sequence[Hits]) -> Hits:
    """Hits of several searches of one index, at least one, one behind the other: not in the order of cosines."""
    starts = np.cumsum([0, *(len(each.model_ids) for each in found)])
    placed = zip(found, starts[:-1], strict=True)
    return Hits(
        np.concatenate([each.model_ids for each in found]),
        np.concatenate([each.cosines for each in found]),
        min(each.covered_seq for each in found),
        found[0].generation,
        all(each.exact for each in found),
        tuple((segment, rows, at + start) for each, start in placed for segment, rows, at in each._places),
    )


@dataclass(frozen=True)
class _Part:
    segment: Segment
    alive: Rows | None = None  # None: all

    def __len__(self) -> int:
        return len(self.segment) if self.alive is None else self.alive.count

    def without(self, model_ids: np.ndarray) -> _Part:
        rows = self.segment.rows_of(model_ids)
        return _Part(self.segment, self._alive().without(rows)) if len(rows) else self

    def wanted(self, allowed: np.ndarray | None, excluded: np.ndarray) -> Rows | None:
        """The rows that a search may return; None for all."""
        rows = self.alive
        if allowed is not None:
            rows = self._alive() & Rows.where(allowed.take(self.segment.model_ids, mode="clip"))
        hidden = self.segment.rows_of(excluded)
        if len(hidden):
            rows = (self._alive() if rows is None else rows).without(hidden)
        return rows

    def alive_rows(self) -> np.ndarray:
        return np.flatnonzero(self._alive().mask(len(self.segment)))

    def _alive(self) -> Rows:
        return Rows.all(len(self.segment)) if self.alive is None else self.alive


@dataclass(frozen=True)
class _View:
    covered_seq: int = 0
    known_since: int = 0  # every change after this one that is covered has left its trace in here
    main: _Part | None = None
    fresh: tuple[_Part, ...] = ()  # of flat segments
    departed: dict[int, int] = field(default_factory=dict)  # models that left after main was made, and when

    @property
    def parts(self) -> tuple[_Part, ...]:
        return self.fresh if self.main is None else (self.main, *self.fresh)


class SpaceIndex:
    """Cosine search over the newest vector of each model in a space of dimension d. One thread at a time may change it;
    any number may search meanwhile.
    """

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self.geometries: Mapping[Place, Fitted] = {}  # as last fitted; replaced whole
        self._view = _View()

    def __len__(self) -> int:
        return sum(len(part) for part in self._view.parts)

    def count(self, allowed: np.ndarray | None) -> int:
        """How many models are in here, of those for which `allowed` (bool, by model id) is true."""
        if allowed is None:
            return len(self)
        ids = [part.segment.model_ids[part.alive_rows()] for part in self._view.parts]
        return sum(int(allowed.take(each, mode="clip").sum()) for each in ids)

    @property
    def covered_seq(self) -> int:
        """The last change that a search takes into account."""
        return self._view.covered_seq

    @property
    def main(self) -> MappedSegment | None:
        part = self._view.main
        return part.segment if part is not None and isinstance(part.segment, MappedSegment) else None

    @property
    def generation(self) -> int:
        return self.main.manifest.generation if self.main else 0

    @property
    def fresh_vectors(self) -> int:
        return sum(len(part) for part in self._view.fresh)

    @property
    def memory(self) -> int:
        return sum(part.segment.memory for part in self._view.parts)

    def apply(self, changes: Sequence[Change]) -> None:
        """Take in the next entries of the feed, in their order. A vector of another dimension counts as none."""
        newest = {change.model_id: change for change in changes}
        changed = np.fromiter(newest, dtype=np.int64)
        added = [each for each in newest.values() if each.vector is not None and each.vector.size == self.dimension]
        gone = {model_id: each.seq for model_id, each in newest.items()}
        for each in added:
            del gone[each.model_id]
        vectors = np.array([each.vector for each in added], np.float32).reshape(-1, self.dimension)
        ids = np.array([each.model_id for each in added], np.int64)
        seqs = np.array([each.seq for each in added], np.int64)
        self._take_in(changed, (ids, vectors, seqs), gone, changes[-1].seq)

    def fill(self, model_ids: np.ndarray, vectors: np.ndarray, covered_seq: int) -> None:
        """Take in models (m,) that are not in here yet, as they were at a place of the feed."""
        seqs = np.full(len(model_ids), covered_seq, np.int64)
        self._take_in(np.empty(0, np.int64), (model_ids, vectors, seqs), {}, covered_seq, known_since=covered_seq)

    def can_swap(self, covered_seq: int) -> bool:
        """Whether a main segment made at that place of the feed can be brought up to date with what is known here."""
        return covered_seq >= self._view.known_since

    def swap(self, main: MappedSegment) -> None:
        """Go over to another main segment, one that `can_swap`."""
        view, covered = self._view, main.manifest.covered_seq
        fresh = [_newer(part, covered) for part in view.fresh]
        departed = {model_id: seq for model_id, seq in view.departed.items() if seq > covered}
        replaced = [part.segment.model_ids for part in fresh]
        stale = np.concatenate([np.fromiter(departed, dtype=np.int64), *replaced])
        self._view = _View(
            covered_seq=max(view.covered_seq, covered),
            known_since=covered,
            main=_Part(main).without(stale),
            fresh=tuple(part for part in fresh if len(part)),
            departed=departed,
        )

    def search(
        self,
        vector: np.ndarray,
        k: int,
        *,
        exclude: Collection[int] = (),
        allowed: np.ndarray | None = None,
        min_similarity: float = -1,
    ) -> Hits:
        """The k nearest models to a vector (d,) by cosine, without those of `exclude`, and only those for which
        `allowed` (bool, by model id) is true.

        Raises `SpaceMismatch` for another dimension, `InvalidVector` for NaN, infinity or nothing but zeros.
        """
        query, view = self.query(vector), self._view
        excluded = np.unique(np.fromiter(exclude, dtype=np.int64))
        found = [part.segment.search(query, k, part.wanted(allowed, excluded)) for part in view.parts]
        return _merged(view, found, k, min_similarity)

    def query(self, vector: np.ndarray) -> np.ndarray:
        """A vector (d,) as it is compared: float32, of length 1. Raises as `search`."""
        return normalized(checked(vector, self.dimension))

    def _take_in(
        self,
        changed: np.ndarray,
        added: tuple[np.ndarray, np.ndarray, np.ndarray],
        gone: dict[int, int],
        seq: int,
        known_since: int = 0,
    ) -> None:
        view = self._view
        fresh = [_compacted(part.without(changed)) for part in view.fresh]
        pieces = [added]
        if fresh and fresh[-1].segment.memory < FRESH_BYTES:
            pieces.insert(0, _pieces(fresh.pop()))
        ids, vectors, seqs = (np.concatenate(each) for each in zip(*pieces, strict=True))
        if len(ids):
            fresh.append(_Part(FlatSegment(ids, vectors, seqs)))
        departed = view.departed
        if gone or departed:
            back = set(added[0].tolist())
            departed = {model_id: when for model_id, when in (departed | gone).items() if model_id not in back}
        self._view = replace(
            view,
            covered_seq=max(view.covered_seq, seq),
            known_since=max(view.known_since, known_since),
            main=view.main.without(changed) if view.main else None,
            fresh=tuple(part for part in fresh if len(part)),
            departed=departed,
        )


def _pieces(part: _Part, rows: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    assert isinstance(part.segment, FlatSegment)
    return part.segment.kept(part.alive_rows() if rows is None else rows)


def _compacted(part: _Part) -> _Part:
    """Without its dead rows, once they are the half."""
    return part if 2 * len(part) > len(part.segment) else _Part(FlatSegment(*_pieces(part)))


def _newer(part: _Part, covered: int) -> _Part:
    """What came after a place of the feed."""
    assert isinstance(part.segment, FlatSegment)
    rows = part.alive_rows()
    return _Part(FlatSegment(*_pieces(part, rows[part.segment.seqs[rows] > covered])))


def _merged(view: _View, found: Sequence[Found], k: int, min_similarity: float) -> Hits:
    segments = [part.segment for part in view.parts]
    generation = view.main.segment.manifest.generation if view.main else 0  # type: ignore[attr-defined]
    exact = all(each.exact for each in found)
    if not segments:
        return Hits(np.empty(0, np.int64), np.empty(0, np.float32), view.covered_seq)
    model_ids = np.concatenate([part.model_ids[each.rows] for part, each in zip(segments, found, strict=True)])
    # rounding, and halves of float32 in a mapped segment, may pass 1 by a hair
    cosines = np.clip(np.concatenate([each.cosines for each in found]), -1, 1)
    origin = np.repeat(np.arange(len(found)), [len(each.rows) for each in found])
    rows = np.concatenate([each.rows for each in found])
    best = np.argsort(-cosines, kind="stable")[:k]
    best = best[cosines[best] >= min_similarity]
    origin, rows = origin[best], rows[best]
    places = [(segment, np.flatnonzero(origin == number)) for number, segment in enumerate(segments)]
    return Hits(
        model_ids[best],
        cosines[best],
        view.covered_seq,
        generation,
        exact,
        tuple((segment, rows[at], at) for segment, at in places if len(at)),
    )
