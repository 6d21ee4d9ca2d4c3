"""Warnings about a merge, shown before it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from catalog.merges.methods import MergeSpec
from catalog.merges.parts import Part
from catalog.tables import SpaceRow

# Thresholds for cosines of raw vectors. In examples/pool the lowest cosine within a domain is 0.85, the highest between
# domains 0.78 (docs/merging.md).
SIMILAR = 0.8
OPPOSING = 0.0


@dataclass(frozen=True)
class Pair:
    """Two parts, by their indices, and the cosine of their raw vectors."""

    first: int
    second: int
    cosine: float


@dataclass(frozen=True)
class Note:
    """A warning. Clients may rely on the `code`, which does not change."""

    code: str
    message: str


def pair_notes(parts: Sequence[Part], pairs: Sequence[Pair]) -> list[Note]:
    """Notes on pairs of parts that are nearly the same or that cancel each other."""
    notes = []
    for pair in pairs:
        first, second = parts[pair.first], parts[pair.second]
        weighted_cosine = pair.cosine if first.weight * second.weight > 0 else -pair.cosine
        names = f"{first.name} and {second.name}"
        if weighted_cosine > SIMILAR:
            message = f"{names} are nearly the same (cosine {pair.cosine:.2f}): merging both gains little."
            notes.append(Note("similar_parts", message))
        elif weighted_cosine < OPPOSING:
            message = f"{names} partly cancel each other with these weights (cosine {pair.cosine:.2f})."
            notes.append(Note("opposing_parts", message))
    return notes


def part_notes(parts: Sequence[Part], space: SpaceRow) -> list[Note]:
    """Notes on single parts, their licenses among them."""
    notes = []
    for part in parts:
        if part.vectors[space.id].no_shift:
            notes.append(
                Note("no_shift", f"{part.name} is indistinguishable from its base: it contributes only noise.")
            )
        if (part.revision.facts or {}).get("rslora"):
            notes.append(
                Note(
                    "rslora",
                    f"{part.name} is an rsLoRA, which is scaled by the square root of its rank. This merge takes the "
                    "scale into account, and its result is a plain LoRA. PEFT's own merge would pass the setting on if "
                    "this part came first, and be too strong by the square root of the new rank.",
                )
            )
    unknown = [part.name for part in parts if part.ranks is None]
    if unknown:
        names = ", ".join(unknown)
        notes.append(Note("unknown_ranks", f"The ranks of {names} are unknown: the job checks whether they fit."))
    if len({part.model.license for part in parts}) > 1:
        licenses = ", ".join(f"{part.name}: {part.model.license or 'unknown'}" for part in parts)
        notes.append(Note("different_licenses", f"The parts have different licenses ({licenses})."))
    return notes


def method_notes(spec: MergeSpec, parts: Sequence[Part], rank: int | None) -> list[Note]:
    """Notes on the effects of the method besides adding the parts; `rank` is that of the result."""
    method, notes = spec.definition, []
    if method.combines_factors:
        notes.append(
            Note(
                "cross_terms",
                f"The method {method.name} combines A and B separately. The product of the results also contains B of "
                "one part times A of another, which no part has learned. cat and the methods whose names end in svd "
                "have no such terms.",
            )
        )
    if method.elects_sign:
        notes.append(
            Note("averages", "TIES averages values whose signs agree, so the merge is shorter than the predicted sum.")
        )
        if any(part.weight < 0 for part in parts):
            notes.append(
                Note(
                    "signs_before_weights",
                    "TIES elects signs before it applies weights: a part with a negative weight votes as if its weight "
                    "were positive.",
                )
            )
    ranks = [part.ranks for part in parts]
    full_rank = sum(max(part_ranks, default=0) for part_ranks in ranks if part_ranks is not None)
    if method.name == "svd" and rank is not None and None not in ranks and rank < full_rank:
        message = (
            f"The SVD keeps rank {rank}, but the sum may have rank {full_rank}. Set `rank` to {full_rank} to keep it."
        )
        notes.append(Note("truncated_rank", message))
    return notes
