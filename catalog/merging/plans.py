"""What a merge will be, told from what the catalog knows of its parts: nothing is fetched and nothing computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from sqlalchemy.orm import Session

from catalog.errors import MergeIncompatible, NotIndexed, SpaceMismatch
from catalog.merging.blends import Blend
from catalog.repository import models, vectors
from catalog.repository.vectors import Stored
from catalog.spaces import PREFERRED
from catalog.tables import Model, Revision, SpaceRow
from catalog.viewers import Viewer

# cosines of raw vectors: of examples/pool the least of one domain is 0.85, the greatest of two 0.78 (docs/merging.md)
ALIKE = 0.8
OPPOSED = 0.0
MERGED_KINDS = ("lora", "adalora")
TINY = 1e-12


@dataclass(frozen=True)
class Part:
    """A model of the merge, its weight, and its vectors by the id of their space."""

    model: Model
    revision: Revision
    weight: float
    vectors: Mapping[int, Stored]

    @property
    def name(self) -> str:
        return self.model.repo_id

    @property
    def ranks(self) -> list[int] | None:
        """Of its modules, each once; None where the revision was indexed before these were stored."""
        return (self.revision.facts or {}).get("ranks")


@dataclass(frozen=True)
class Pair:
    """Two parts (by their places) and the cosine of their vectors as they are."""

    first: int
    second: int
    cosine: float


@dataclass(frozen=True)
class Note:
    """What somebody should know before it is made; `code` is stable."""

    code: str
    message: str


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
    """Raises `ModelNotFound`, `NotIndexed`, `MergeIncompatible`, `SpaceMismatch`."""
    parts = [_part(session, repo_id, weight, viewer) for repo_id, weight in blend.weights.items()]
    _check_same_base(parts)
    for part in parts:
        _check_kind(part)
    _check_ranks(blend, parts)
    shared = _shared_spaces(parts)
    weights = np.array([part.weight for part in parts])
    predicted = {space.id: weights @ np.stack([part.vectors[space.id].vector for part in parts]) for space in shared}
    space = shared[0]
    pairs = [
        Pair(one, two, cosine(parts[one].vectors[space.id].vector, parts[two].vectors[space.id].vector))
        for one, two in combinations(range(len(parts)), 2)
    ]
    floors = [part.vectors[space.id].noise_floor for part in parts]
    noise = sum(abs(part.weight) * (floor or 0) for part, floor in zip(parts, floors, strict=True))
    notes = [*_of_pairs(parts, pairs), *_of_parts(parts, space), *_of_method(blend, parts)]
    rank = _rank(blend, parts)
    return Plan(blend, parts, space, predicted, noise if None not in floors else None, pairs, notes, rank)


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    """Of vectors (d,) and (d,)."""
    lengths = max(float(np.linalg.norm(one)) * float(np.linalg.norm(other)), TINY)
    return min(1.0, max(-1.0, float(one.astype(np.float64) @ other.astype(np.float64)) / lengths))


def _part(session: Session, repo_id: str, weight: float, viewer: Viewer) -> Part:
    model = models.get(session, repo_id, viewer)
    found = {stored.space.id: stored for stored in vectors.in_spaces(session, model)}
    if model.revision is None or not found:
        raise NotIndexed(f"{repo_id} has no vector yet (it is {model.state}). Look at its job for the reason.")
    if model.private:
        raise MergeIncompatible(
            f"{repo_id} is private, and the token that it was read with has been forgotten: its files cannot be "
            "fetched again. Merge it where you have them."
        )
    return Part(model, model.revision, weight, found)


def _check_same_base(parts: Sequence[Part]) -> None:
    first = parts[0]
    if len({part.model.id for part in parts}) < len(parts):
        raise MergeIncompatible("A model stands twice among the parts: name it once, with the sum of its weights.")
    for part in parts[1:]:
        mine, yours = part.revision, first.revision
        if mine.base_repo != yours.base_repo:
            raise MergeIncompatible(
                f"{part.name} is a fine-tune of {mine.base_repo}, {first.name} of {yours.base_repo}: only adapters of "
                "one base can be merged."
            )
        if mine.base_sha != yours.base_sha:
            raise MergeIncompatible(
                f"{part.name} and {first.name} were measured on different commits of {mine.base_repo} "
                f"({mine.base_sha[:12]}, {yours.base_sha[:12]}): reindex them first."
            )


def _check_kind(part: Part) -> None:
    kind, facts = part.revision.kind, part.revision.facts or {}
    if kind == "dora":
        raise MergeIncompatible(
            f"{part.name} is a DoRA. Its magnitudes belong to its own direction: PEFT would leave them out and give "
            "something else. Merge whole models, with mergekit."
        )
    if kind not in MERGED_KINDS:
        raise MergeIncompatible(
            f"{part.name} is of the kind {kind}, and only LoRAs can be merged here. Merge whole models, with mergekit."
        )
    if facts.get("path", "lora") != "lora":
        raise MergeIncompatible(MORE_THAN_PAIRS.format(name=part.name))


MORE_THAN_PAIRS = (
    "{name} brings more than low-rank pairs (whole modules or embeddings, trained biases or tokens, experts), which "
    "PEFT would leave out of a merge without a word. Merge whole models, with mergekit."
)


def check_ranks(blend: Blend, ranks: Mapping[str, Sequence[int]]) -> None:
    """By the parts' names. Raises `MergeIncompatible` where the method works on A and B and has not one rank alone."""
    if blend.how.factors and len({rank for each in ranks.values() for rank in each}) > 1:
        told = ", ".join(f"{name} has {'/'.join(map(str, each))}" for name, each in ranks.items())
        raise MergeIncompatible(
            f"The method {blend.method} adds up factors of one rank, and these differ: {told}. Take cat or svd, which "
            "add up products."
        )


def _check_ranks(blend: Blend, parts: Sequence[Part]) -> None:
    check_ranks(blend, {part.name: part.ranks for part in parts if part.ranks is not None})


def _shared_spaces(parts: Sequence[Part]) -> list[SpaceRow]:
    """Those in which all parts have a vector: those that serve first, of these the features that searches prefer."""
    shared = set.intersection(*({*part.vectors} for part in parts))
    found = [each.space for each in parts[0].vectors.values() if each.space.id in shared]
    order = {feature: place for place, feature in enumerate(PREFERRED)}
    found.sort(key=lambda space: (not space.serving, order.get(space.feature, len(order)), -space.id))
    if not found:
        raise SpaceMismatch("The parts have no space in common: reindex them, so that one contract measures them all.")
    return found


def _rank(blend: Blend, parts: Sequence[Part]) -> int | None:
    ranks = [max(part.ranks, default=0) for part in parts if part.ranks is not None]
    if blend.how.cuts and blend.rank is not None:
        return blend.rank
    if len(ranks) < len(parts):
        return None
    return sum(ranks) if blend.method == "cat" else max(ranks)


def _of_pairs(parts: Sequence[Part], pairs: Sequence[Pair]) -> list[Note]:
    notes = []
    for pair in pairs:
        first, second = parts[pair.first], parts[pair.second]
        acting = pair.cosine if first.weight * second.weight > 0 else -pair.cosine  # as they go into the sum
        names, told = f"{first.name} and {second.name}", f"cosine {pair.cosine:.2f}"
        if acting > ALIKE:
            notes.append(
                Note("alike", f"{names} did nearly the same to their base ({told}): little is gained by both.")
            )
        elif acting < OPPOSED:
            notes.append(
                Note("opposed", f"{names} work against each other with these weights ({told}): they cancel in part.")
            )
    return notes


def _of_parts(parts: Sequence[Part], space: SpaceRow) -> list[Note]:
    notes = []
    for part in parts:
        if part.vectors[space.id].no_shift:
            notes.append(
                Note("no_shift", f"{part.name} does not move its base measurably: what it adds here is noise.")
            )
        if (part.revision.facts or {}).get("rslora"):
            notes.append(
                Note(
                    "rslora",
                    f"{part.name} is an rsLoRA, scaled by the root of its rank. PEFT's own merge hands that on where "
                    "such a part comes first, and is too strong by the root of the new rank; here its scale is taken "
                    "into account, and the result is a plain LoRA.",
                )
            )
    unknown = [part.name for part in parts if part.ranks is None]
    if unknown:
        notes.append(
            Note("unknown", f"Ranks are not known of {', '.join(unknown)}: the job finds out whether they fit.")
        )
    licences = {part.model.licence for part in parts}
    if len(licences) > 1:
        told = ", ".join(f"{part.name}: {part.model.licence or 'none known'}" for part in parts)
        notes.append(Note("licences", f"The parts stand under different licences ({told})."))
    return notes


def _of_method(blend: Blend, parts: Sequence[Part]) -> list[Note]:
    how, notes = blend.how, []
    if how.factors:
        notes.append(
            Note(
                "cross_terms",
                f"The method {how.name} combines A and B each by themselves. Their product also holds B of one part "
                "times A of another, which none has learned; cat and the methods that end in svd have no such terms.",
            )
        )
    if how.elects:
        notes.append(
            Note("averages", "TIES averages where signs agree, so the merge is shorter than the sum that is predicted.")
        )
        if any(part.weight < 0 for part in parts):
            notes.append(
                Note(
                    "signs_before_weights",
                    "TIES elects signs before it weighs: a part with a negative weight votes as if it were added.",
                )
            )
    wanted, known = _rank(blend, parts), [part.ranks for part in parts]
    whole = sum(max(each, default=0) for each in known if each is not None)
    if blend.method == "svd" and wanted is not None and None not in known and wanted < whole:
        notes.append(
            Note("cut", f"An SVD keeps rank {wanted}; the sum may have {whole}. Ask `rank` {whole} to keep all of it.")
        )
    return notes


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
