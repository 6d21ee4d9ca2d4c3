"""Plans of merges: the prediction and the notes, made from stored vectors without fetching any files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from sqlalchemy.orm import Session

from catalog.auth.viewer import Viewer
from catalog.errors import SpaceMismatch, ZeroVector
from catalog.merges.methods import MergeSpec
from catalog.merges.notes import Note, Pair, method_notes, pair_notes, part_notes
from catalog.merges.parts import Part, load, result_rank
from catalog.spaces.contract import preference_rank
from catalog.tables import SpaceRow
from catalog.vectors.numeric import RELATIVE_ROUNDING_ERROR, cosine


@dataclass(frozen=True)
class Plan:
    """A merge that has not run yet.

    `predictions` has the weighted sum of the parts' vectors, (d,) float64, by the id of each space that has all parts.
    `space` is the preferred one of these spaces, and `noise_floor` the norm up to which its prediction may be noise
    (None: not measured). `rank` is that of the result (None: unknown until the job has fetched the parts).
    """

    spec: MergeSpec
    parts: Sequence[Part]
    space: SpaceRow
    predictions: Mapping[int, np.ndarray]
    noise_floor: float | None
    pairs: Sequence[Pair]
    notes: Sequence[Note]
    rank: int | None

    @property
    def prediction(self) -> np.ndarray:
        return self.predictions[self.space.id]

    def cosines_to_parts(self, vector: np.ndarray) -> list[float]:
        """The cosines of a vector (d,) of the plan's space to each part."""
        return [cosine(vector, part.vectors[self.space.id].vector) for part in self.parts]


def create(session: Session, spec: MergeSpec, viewer: Viewer) -> Plan:
    """Plan a merge.

    Raises `ModelNotFound`, `NotIndexed`, `MergeIncompatible`, `SpaceMismatch`, and `ZeroVector` if the parts cancel
    each other.
    """
    parts = load(session, spec, viewer)
    spaces = _shared_spaces(parts)
    weights = np.array([part.weight for part in parts])
    predictions = {space.id: weights @ np.stack([part.vectors[space.id].vector for part in parts]) for space in spaces}
    space = spaces[0]
    encodings = [part.vectors[space.id] for part in parts]
    sum_of_norms = sum(abs(part.weight) * part.vectors[space.id].norm for part in parts)
    if float(np.linalg.norm(predictions[space.id])) <= RELATIVE_ROUNDING_ERROR * sum_of_norms:
        raise ZeroVector("The parts of this merge cancel each other, so its prediction is zero. Change their weights.")
    pairs = [
        Pair(first, second, cosine(encodings[first].vector, encodings[second].vector))
        for first, second in combinations(range(len(parts)), 2)
    ]
    floors = [encoding.noise_floor for encoding in encodings]
    noise_floor = sum(abs(part.weight) * (floor or 0) for part, floor in zip(parts, floors, strict=True))
    rank = _rank(spec, parts)
    warnings = [*pair_notes(parts, pairs), *part_notes(parts, space), *method_notes(spec, parts, rank)]
    return Plan(spec, parts, space, predictions, None if None in floors else noise_floor, pairs, warnings, rank)


def as_dict(plan: Plan) -> dict[str, Any]:
    """The fields of a plan that are stored with the merge."""
    return {
        "rank": plan.rank,
        "pairs": [[pair.first, pair.second, round(pair.cosine, 6)] for pair in plan.pairs],
        "notes": [[note.code, note.message] for note in plan.notes],
        "cosines_to_parts": [round(value, 6) for value in plan.cosines_to_parts(plan.prediction)],
        "norm": float(np.linalg.norm(plan.prediction)),
        "noise_floor": plan.noise_floor,
        "space": plan.space.key,
    }


def _shared_spaces(parts: Sequence[Part]) -> list[SpaceRow]:
    """The spaces in which all parts have a vector: serving spaces first, then by the preference of their features."""
    shared_ids = set.intersection(*({*part.vectors} for part in parts))
    spaces = [encoding.space for encoding in parts[0].vectors.values() if encoding.space.id in shared_ids]
    spaces.sort(key=lambda space: (not space.serving, preference_rank(space.feature), -space.id))
    if not spaces:
        raise SpaceMismatch("The parts have no space in common. Reindex them, so that all have the same contract.")
    return spaces


def _rank(spec: MergeSpec, parts: Sequence[Part]) -> int | None:
    ranks = [part.ranks for part in parts if part.ranks is not None]
    requested = spec.definition.truncates_rank and spec.rank is not None
    return result_rank(spec, ranks) if requested or len(ranks) == len(parts) else None
