"""What a merge will be, told from what the catalog knows of its parts: nothing is fetched and nothing computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from sqlalchemy.orm import Session

from catalog.auth.viewer import Viewer
from catalog.errors import NothingLeft, SpaceMismatch
from catalog.merges import notes
from catalog.merges.methods import Blend
from catalog.merges.notes import Note, Pair
from catalog.merges.parts import Part, rank_of, read
from catalog.spaces.contract import preference_rank
from catalog.tables import SpaceRow
from catalog.vectors.numeric import ROUNDING, cosine


@dataclass(frozen=True)
class Plan:
    """`predicted` (d,) float64 is the weighted sum of the parts' vectors in each space that has them all, by the
    space's id; `space` is the first of these that searches prefer, and `noise_floor` the most of the prediction there
    that noise explains (a norm). `rank` is the result's (None: the job finds out).
    """

    blend: Blend
    parts: Sequence[Part]
    space: SpaceRow
    predicted: Mapping[int, np.ndarray]
    noise_floor: float | None
    pairs: Sequence[Pair]
    notes: Sequence[Note]
    rank: int | None

    @property
    def prediction(self) -> np.ndarray:
        return self.predicted[self.space.id]

    def closeness(self, vector: np.ndarray) -> list[float]:
        """Cosine of a vector (d,) of the plan's space to each part."""
        return [cosine(vector, part.vectors[self.space.id].vector) for part in self.parts]


def make(session: Session, blend: Blend, viewer: Viewer) -> Plan:
    """Raises what `parts.read` raises, `SpaceMismatch`, and `NothingLeft` where the parts cancel each other."""
    parts = read(session, blend, viewer)
    shared = _shared_spaces(parts)
    weights = np.array([part.weight for part in parts])
    predicted = {space.id: weights @ np.stack([part.vectors[space.id].vector for part in parts]) for space in shared}
    space = shared[0]
    lengths = [abs(part.weight) * part.vectors[space.id].norm for part in parts]
    if float(np.linalg.norm(predicted[space.id])) <= ROUNDING * sum(lengths):
        raise NothingLeft("Nothing is left of this merge: its parts cancel each other.")
    pairs = [
        Pair(one, two, cosine(parts[one].vectors[space.id].vector, parts[two].vectors[space.id].vector))
        for one, two in combinations(range(len(parts)), 2)
    ]
    floors = [part.vectors[space.id].noise_floor for part in parts]
    noise = sum(abs(part.weight) * (floor or 0) for part, floor in zip(parts, floors, strict=True))
    rank = _rank(blend, parts)
    told = [*notes.of_pairs(parts, pairs), *notes.of_parts(parts, space), *notes.of_method(blend, parts, rank)]
    return Plan(blend, parts, space, predicted, noise if None not in floors else None, pairs, told, rank)


def as_dict(plan: Plan) -> dict[str, Any]:
    """What of it is stored with the merge."""
    return {
        "rank": plan.rank,
        "pairs": [[pair.first, pair.second, round(pair.cosine, 6)] for pair in plan.pairs],
        "notes": [[note.code, note.message] for note in plan.notes],
        "closeness": [round(each, 6) for each in plan.closeness(plan.prediction)],
        "norm": float(np.linalg.norm(plan.prediction)),
        "noise_floor": plan.noise_floor,
        "space": plan.space.key,
    }


def _shared_spaces(parts: Sequence[Part]) -> list[SpaceRow]:
    """Those in which all parts have a vector: those that serve first, of these the features that searches prefer."""
    shared = set.intersection(*({*part.vectors} for part in parts))
    found = [each.space for each in parts[0].vectors.values() if each.space.id in shared]
    found.sort(key=lambda space: (not space.serving, preference_rank(space.feature), -space.id))
    if not found:
        raise SpaceMismatch("The parts have no space in common: reindex them, so that one contract measures them all.")
    return found


def _rank(blend: Blend, parts: Sequence[Part]) -> int | None:
    known = [part.ranks for part in parts if part.ranks is not None]
    named = blend.how.cuts and blend.rank is not None
    return rank_of(blend, known) if named or len(known) == len(parts) else None
